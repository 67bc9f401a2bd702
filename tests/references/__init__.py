"""Slow twins: every method once more, in loops as its paper writes it, in float64, from the weights alone.

Nothing here imports `captum_vit`. `models.py` makes the two reference models, `forward.py` runs them by hand, and each
further file is one family of methods. A twin takes `(model, sample, target, ...)` for one sample and returns the map
of all tokens, prefix tokens and padding included, as (N,) in float64.
"""
