"""Whether a rule is complete, where that is in doubt: proved once, and remembered."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from torch import Tensor, nn

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.per_sample import first_samples
from captum_vit.models.transformer import Transformer
from captum_vit.sites.site import Place
from captum_vit.trace.modes.completeness import COMPLETE, custom_functions
from captum_vit.trace.replay.proof import proof
from captum_vit.trace.run.describe import remembered, shapes_of, where_of


def refuse_incomplete(
    model: nn.Module,
    transformer: Transformer,
    place: Place,
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
    rule: str,
) -> None:
    """Refuse a network on which tokens and biases do not sum to the score under a rule that says that they do.

    Where attention can be followed nothing is tried. Else it costs a forward and a backward pass of one sample, the
    first time that a model is given inputs of this shape. Call it inside ``undisturbed``, and under no rule.

    Raises:
        UnsupportedModelError: the first operation that the rule does not cover, or the two sums.
    """
    if transformer.refusal is not None and rule in COMPLETE:
        _refuse(model, place, inputs, args, rule)


def refuse_own_derivatives(
    model: nn.Module,
    place: Place,
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
    rule: str,
    output: Tensor,
) -> None:
    """The same for a network with a function that brings its own derivative, which the rule cannot see as it runs.

    Such functions are looked for in the graph of the output, the first time that a model is given inputs of this shape.
    """
    if rule in COMPLETE:
        _refuse(model, place, inputs, args, rule, lambda: any(custom_functions(output.grad_fn)))


def _refuse(
    model: nn.Module,
    place: Place,
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
    rule: str,
    doubtful: Callable[[], bool] = lambda: True,
) -> None:
    known, key = remembered(model).proofs, (rule, where_of(place), shapes_of(inputs, args))
    if key not in known:
        try:
            if doubtful():
                proof(model, *first_samples(inputs, args), place, rule).refuse()
            known[key] = None
        except UnsupportedModelError as error:
            known[key] = copy(error)
    refusal = known[key]
    if refusal is not None:
        raise copy(refusal)
