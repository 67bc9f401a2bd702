"""DecompX whose biases are shared out is complete, and without them it is the one pass of the package."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import captum_vit as cv
from tests.references.decompx import decompx
from tests.references.decompx_bias import BIASES, decompx_with_bias, with_bias
from tests.references.forward import Sample, forward
from tests.references.models import reference_bert, reference_images, reference_sentences, reference_vit

pytestmark = pytest.mark.slow

TARGET = 3
EXACT = {"rtol": 1e-10, "atol": 1e-11}


@pytest.fixture(params=["vit", "bert", "bert, padded"])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Sample]:
    if request.param == "vit":
        return reference_vit(layer_scale=True), reference_images()[0]
    ids, mask = reference_sentences()
    row = int("padded" in request.param)
    return reference_bert(), (ids[row], mask[row])


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("bias", [bias for bias in BIASES if bias != "none"])
def test_shared_biases_complete_the_logit(case: tuple[nn.Module, Sample], bias: str, start: int):
    found = decompx_with_bias(*case, TARGET, bias, start)
    p = forward(*case)
    assert_close(found.sum(), p.logits[TARGET].detach(), **EXACT)
    assert (found[~p.real] == 0).all()


@pytest.mark.parametrize("start", [0, 1])
def test_without_biases_it_is_the_one_pass(case: tuple[nn.Module, Sample], start: int):
    model, sample = case
    found = decompx_with_bias(model, sample, TARGET, "none", start)
    assert_close(found, decompx(model, sample, TARGET, start), **EXACT)
    inputs, args = (sample[None], ()) if isinstance(sample, Tensor) else (sample[0][None], (sample[1][None],))
    one_pass = cv.DecompX(model, start, output="tokens").attribute(inputs, TARGET, args or None)
    assert_close(found, one_pass[0], **EXACT)


def test_biases_for_cls_are_the_one_pass_and_all_biases_on_cls(case: tuple[nn.Module, Sample]):
    """So this choice says nothing of the other tokens, and needs no option."""
    found, bare = (decompx_with_bias(*case, TARGET, bias) for bias in ("cls", "none"))
    assert_close(found[1:], bare[1:], **EXACT)
    assert_close(found[0] - bare[0], forward(*case).logits[TARGET].detach() - bare.sum(), **EXACT)


def test_what_shares_biases_out_matters(case: tuple[nn.Module, Sample]):
    maps = [decompx_with_bias(*case, TARGET, bias) for bias in BIASES]
    assert not any(torch.allclose(a, b, rtol=1e-3) for i, a in enumerate(maps) for b in maps[:i])


def test_the_shares_of_a_bias_by_hand():
    parts = torch.tensor([[[3.0, 4.0], [0.0, -5.0], [0.0, 0.0]]], dtype=torch.float64)
    b = torch.tensor([0.0, 2.0], dtype=torch.float64)
    wanted = {
        "none": [0, 0, 0],
        "absdot": [8 / 18, 10 / 18, 0],
        "dot": [8 / -2, -10 / -2, 0],
        "abssim": [0.8 / 1.8, 1 / 1.8, 0],
        "norm": [0.5, 0.5, 0],
        "equal": [0.5, 0.5, 0],
        "cls": [1, 0, 0],
    }
    assert wanted.keys() == set(BIASES)
    for bias, weights in wanted.items():
        added = (with_bias(parts, b, bias) - parts)[0]
        assert_close(added, torch.tensor(weights, dtype=torch.float64).unsqueeze(1) * b)
        assert bias == "none" or math.isclose(sum(weights), 1)
