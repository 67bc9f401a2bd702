"""Tiny models of every family, with random weights, and some trained ones: the tables that the exam runs on.

A random model is built from its configuration, without a download, and every parameter is drawn anew from a seeded
generator, biases, norms, LayerScale and heads included: what a library initialises with zeros or ones would
hide mistakes. ``CASES`` maps a name to a builder of a :class:`Case`; each is built once.
"""

from collections.abc import Iterable
from typing import Any

import pytest

from tests.models.digits import SWIN, digits
from tests.models.huggingface import DEBERTA, PICTURE, SIZES, VOCABULARY, WINDOW, captions, clip_model, padded
from tests.models.open_clip import open_clip_model
from tests.models.sounds import AST
from tests.models.strangers import OF_TOKENS, READ_HEADS, STRANGERS
from tests.models.table import CASES, CLASSES, FURTHER, TEXTS, TRAINED, Case, case, image, redrawn
from tests.models.timm import TIMM, timm_case, timm_vit
from tests.models.torchvision import torchvision_vit

__all__ = [
    "AST", "CASES", "CLASSES", "DEBERTA", "FURTHER", "OF_TOKENS", "PICTURE", "READ_HEADS", "SIZES", "SLICE",
    "STRANGERS", "SWIN", "TEXTS", "TIMM", "TRAINED", "VOCABULARY", "WINDOW", "Case", "captions", "case", "clip_model",
    "digits", "image", "open_clip_model", "padded", "redrawn", "slow_beyond_slice", "timm_case", "timm_vit",
    "torchvision_vit",
]  # fmt: skip

SLICE = ("timm ViT", "timm SigLIP", "HF BERT", "HF CLIP")


def slow_beyond_slice(names: Iterable[str]) -> list[Any]:
    """The rows of a test of each model: the quick loop runs four, as in tests/contracts."""
    return [pytest.param(name, marks=() if name in SLICE else pytest.mark.slow) for name in names]
