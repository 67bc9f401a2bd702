"""What compares maps finds an error of a thousandth, in every method, and the maps that cancel most."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from tests.contracts.closeness import SEEN, TOLERANCE, assert_close, assert_close_in_float32, float32_changes
from tests.contracts.pairs import IN_FULL_PRECISION, Pair, draws, explain
from tests.references.models import reference_bert, reference_images, reference_sentences, reference_vit

CANCELLING = [("TokenGradCAM", "HF BERT"), ("TokenLayerCAM", "HF DistilBERT"), ("AttIxG", "timm ViT prompted")]


def spoilt(relevance: Tensor, by: float = SEEN) -> Tensor:
    """One number of each sample is off, by a part of the sample's largest."""
    wrong = relevance.clone()
    wrong.flatten(1)[:, 1] += by * relevance.flatten(1).abs().amax(1)
    return wrong


def test_the_bounds_are_tight():
    assert max(TOLERANCE.values()) <= SEEN / 10


@pytest.mark.parametrize(("name", "model"), CANCELLING)
def test_an_error_of_a_millionth_is_found_in_double_precision(name: str, model: str):
    pair = Pair(name, model)
    found = explain(pair.on(pair.exact.forward_func), pair.exact)
    with pytest.raises(AssertionError, match="off by"):
        assert_close(spoilt(found, 1e-6), found, pair.rounding)
    with pytest.raises(AssertionError, match="keep the model's precision"):
        assert_close(found.float(), found.float(), pair.rounding)


@pytest.mark.slow
def test_an_error_of_a_thousandth_is_found_in_single_precision(method):
    pair = Pair(method, "timm ViT")
    if draws(pair.on()) or method in IN_FULL_PRECISION:
        return
    explained = lambda model, inputs: explain(pair.on(model), pair.exact, inputs=inputs)  # noqa: E731
    model, inputs = pair.exact.forward_func, pair.exact.inputs
    wanted, found = explained(model, inputs), explain(pair.on(), pair.case)
    assert_close_in_float32(found, wanted, explained, model, inputs)
    with pytest.raises(AssertionError, match="off by"):
        assert_close_in_float32(spoilt(found, 2 * SEEN), wanted, explained, model, inputs)


TOKENS = {"output": "tokens"}
ON_REFERENCES = {
    "AttCAM at block 0": lambda model: cv.AttCAM(model, 0, **TOKENS),
    "TokenAblation of logits": lambda model: cv.TokenAblation(model, score="logit", **TOKENS),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_REFERENCES)
@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_maps_that_cancel_have_a_bound_that_finds_an_error(name: str, kind: str):
    """Their float32 errors passed 1e-5 of the largest value on some processors."""
    (ids, mask), images = reference_sentences(), reference_images()
    model, inputs = (reference_vit(layer_scale=True), images) if kind == "vit" else (reference_bert(), ids)

    def explained(model: nn.Module, inputs: Tensor) -> Tensor:
        args = mask if kind == "bert" else None
        return ON_REFERENCES[name](model).attribute(inputs, [1, 4], additional_forward_args=args)

    wanted = explained(model, inputs)
    found = explained(copy.deepcopy(model).float(), inputs)
    assert_close_in_float32(found, wanted, explained, model, inputs)
    assert (float32_changes(wanted, explained, model, inputs) > 1e-6 * wanted.flatten(1).abs().amax(1)).all()
    with pytest.raises(AssertionError, match="off by"):
        assert_close_in_float32(spoilt(found, 2 * SEEN), wanted, explained, model, inputs)


def test_a_map_that_is_nothing_but_rounding_has_no_bound():
    """What is left of a large sum that cancels moves by more than itself."""
    model = nn.Linear(64, 1).double()
    inputs = torch.randn(3, 64, dtype=torch.float64)
    explained = lambda model, inputs: (inputs * model.weight.detach() * 1e6).sum(1, keepdim=True) % 1e-3  # noqa: E731
    with pytest.raises(AssertionError, match="nothing but rounding"):
        float32_changes(explained(model, inputs), explained, model, inputs)
