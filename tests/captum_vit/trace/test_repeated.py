"""A model that gives other scores in its second pass is named where a second pass is made; no other one is."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import captum_vit as cv
from tests.models import CASES, TIMM, redrawn, timm_vit

CASE = "timm ViT"


@contextmanager
def random(model: nn.Module) -> Iterator[None]:
    handle = model.blocks[1].register_forward_hook(lambda module, args, output: output + torch.randn_like(output))
    try:
        yield
    finally:
        handle.remove()


def warned(model: nn.Module, inputs: torch.Tensor, method: str) -> bool:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        cv.explain(model, inputs, [1, 2], method)
    return any(issubclass(w.category, cv.UnrepeatableWarning) for w in heard)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "methods"),
    [(torch.float32, list(cv.METHODS)), (torch.bfloat16, ["LayerCDAM", "DecompX", "GenAtt", "TokenAblation"])],
)
def test_no_method_is_taken_for_a_random_model(dtype: torch.dtype, methods: list[str]):
    """Whatever a method does in its own passes, and in half precision."""
    model = redrawn(timm_vit(**TIMM)).to(dtype)
    inputs = CASES[CASE]().inputs[:1].to(dtype)
    assert not [method for method in methods if warned(model, inputs, method)]


@pytest.mark.parametrize("method", ["LayerCDAM", "DecompX", "RawAttention", "GenAtt"])
def test_a_random_model_is_named(method: str):
    model, inputs, _, _ = CASES[CASE]()
    with random(model), pytest.warns(cv.UnrepeatableWarning, match="VisionTransformer gives other scores"):
        cv.explain(model, inputs[:1], 1, method)
    assert not warned(model, inputs[:1], method)


def test_the_model_is_left_as_it_was():
    model, inputs, _, _ = CASES[CASE]()
    with pytest.raises(cv.OptionError):
        cv.explain(model, inputs[:1], 1, lambda model: cv.LayerCDAM(model, output="channels"))
    assert not model._forward_hooks
