"""Trained models as witnesses: scripts that take a folder of weights, and print the tables of docs/real-models.md.

No weights come with the package. How to get them is written in docs/real-models.md; without a folder a script ends with
what is missing. Weights are read from safetensors, or with ``weights_only=True``.
"""
