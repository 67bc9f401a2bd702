"""A sample without a map, or without a number: it is named, and the others of its batch are as they are alone."""

import copy
import warnings
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.models.output import scores_of
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import IN_FULL_PRECISION, draws, explain, in_float64, rows
from tests.models import CASES, TIMM, Case, redrawn, timm_vit


def zero_maps(method: Any, case: Case) -> tuple[Tensor, str]:
    """The map, and what is warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = explain(method, case)
    return found, "".join(str(w.message) for w in caught if issubclass(w.category, cv.ZeroMapWarning))


# -- no gradient ---------------------------------------------------------------------------------------------------

# They ask the model at other points than the sample: without a token, with noise, on the way from zero, or its head on
# the tokens of earlier blocks.
ELSEWHERE = {
    "LayerSmoothCDAM", "LayerIntegratedCDAM", "PredictionMap", "IntegratedGradients", "SmoothGrad", "TokenAblation",
    "LeGrad", "CAAP", "TokenEigenCAM", "DAVE", "RandomAttribution",
}  # fmt: skip


def rectified(output: Any, least: float) -> Tensor:
    return (scores_of(output)[:, 0] - least).relu()


@cache
def with_a_dead_sample(name: str) -> tuple[Case, int]:
    """A case whose single score is a ReLU that is shut for one sample, and which."""
    case = in_float64(name)
    with torch.no_grad():
        scores = scores_of(case.forward_func(case.inputs, *case.additional_forward_args))[:, 0]
    least, next_to_it = scores.sort().values[:2].tolist()
    model = cv.Scalar(case.forward_func, partial(rectified, least=(least + next_to_it) / 2))
    return case._replace(forward_func=model, target=[0, 0, 0]), int(scores.argmin())


def test_a_sample_without_a_gradient(slice_pair):
    case, dead = with_a_dead_sample(slice_pair.model)
    method = slice_pair.on(case.forward_func)
    together, warned = zero_maps(method, case)
    assert together.isfinite().all()
    if slice_pair.method not in ELSEWHERE:
        assert not together[dead].any() and f"sample {dead} is" in warned
    for i in range(0 if draws(method) else 3):
        alone, warned = zero_maps(method, rows(case, slice(i, i + 1)))
        if together[i].any():
            assert_close(together[i : i + 1], alone, slice_pair.rounding)
        else:
            assert not alone.any() and "the sample is" in warned


def test_a_batch_without_a_gradient(slice_pair):
    """As a head that is all zeros leaves it."""
    case = slice_pair.case
    model = cv.Scalar(case.forward_func, partial(rectified, least=1e3))
    found, warned = zero_maps(slice_pair.on(model), case._replace(target=0))
    assert found.isfinite().all()
    assert slice_pair.method in ("PredictionMap", "TokenEigenCAM", "RandomAttribution") or not found.any()
    assert found.any() or "all 3 samples is" in warned


def test_maps_of_all_classes_that_are_zero_are_named():
    case = CASES["timm ViT"]()
    model = cv.Scalar(case.forward_func, lambda y: torch.stack([y[:, 1], (y[:, 0] - 1e3).relu()], 1))
    with pytest.warns(cv.ZeroMapWarning, match="some class of all 3 samples"):
        found = cv.LayerCDAM(model).all_classes(case.inputs)
    assert found.isfinite().all() and found[:, 0].flatten(1).any(1).all() and not found[:, 1].any()


# -- products that cancel ------------------------------------------------------------------------------------------


@cache
def shallow(depth: int, dtype: torch.dtype = torch.float32) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(depth)
        model = redrawn(timm_vit(**TIMM | {"depth": depth})).to(dtype)
    return CASES["timm ViT"]()._replace(forward_func=model)


# Before the last block's norm a patch of a CLS-pooled model meets nothing else, and that is free of scale.
CANCELLING = {1: {"CAT", "PLUS(InputXGradient)", "AttCAT"}, 2: {"AttIxG", "AttCAT"}}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_what_cancels_is_zero(method, dtype):
    if method in IN_FULL_PRECISION and dtype is torch.bfloat16:
        return
    for depth, cancelling in CANCELLING.items():
        case = shallow(depth, dtype)
        make = cv.METHODS[method]
        if method == "AttIxG" and depth == 1:  # behind the last block no patch has a gradient at all
            continue
        found, warned = zero_maps(make(case.forward_func), case)
        assert found.flatten(1).any(1).tolist() == [method not in cancelling] * 3
        assert ("all 3 samples is" in warned) == (method in cancelling)


LITERAL = {
    "CAT from the last block": lambda m: cv.CAT(m, -1),
    "a CAM there, rectified": lambda m: cv.TokenHiResCAM(m, "blocks.0"),
    "SkipPLUS": lambda m: cv.SkipPLUS(cv.CAT(m)),
}


@pytest.mark.parametrize("how", LITERAL)
def test_what_cancels_at_a_layer(how):
    case = shallow(2)
    method = LITERAL[how](case.forward_func)
    method.output = "tokens"
    options = {"relu_attributions": True} if "rectified" in how else {}
    with pytest.warns(cv.ZeroMapWarning, match="all 3 samples"):
        found = method.attribute(case.inputs, target=case.target, **options)
    assert not found[:, 1:].any()


def test_a_literal_layer_at_which_it_cancels_is_refused():
    """CDAM has a better place in the same block, and its refusal names it."""
    case = shallow(2)
    cdam, smooth = (kind(case.forward_func, "blocks.0") for kind in (cv.LayerCDAM, cv.LayerSmoothCDAM))
    for call in (cdam.attribute, smooth.attribute, cdam.value_and_key_terms):
        with pytest.raises(cv.LayerError, match="layer="):
            call(case.inputs, target=1)
    with pytest.raises(cv.LayerError, match="layer=None"):
        cdam.all_classes(case.inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_map_that_is_small_by_nature_stays(dtype):
    """Its terms are as small; and one sample whose terms cancel leaves the others as they are."""
    case = CASES["timm ViT"]()
    model = copy.deepcopy(case.forward_func).to(dtype)
    wanted = explain(cv.CAT(model), case)
    small = explain(cv.CAT(cv.Scalar(model, lambda y: y * 2**-40)), case)
    assert torch.equal(small * 2**40, wanted)


# -- overflow ------------------------------------------------------------------------------------------------------


def test_an_image_that_overflows_is_named(method):
    case = CASES["timm ViT"]()
    inputs = case.inputs.clone()
    inputs[1] *= 1e20
    too_large = case._replace(inputs=inputs)
    if method in ("LRP", "PartialLRP"):  # in float64, where it does not overflow
        assert explain(cv.METHODS[method](case.forward_func), too_large).isfinite().all()
        return
    with pytest.raises(cv.InputError, match="of sample 1\n") as refused:
        explain(cv.METHODS[method](case.forward_func), too_large)
    assert "model.double()" in refused.value.hint
    wide = in_float64("timm ViT").forward_func
    assert explain(cv.METHODS[method](wide), too_large).isfinite().all()


@cache
def overflowing(place: str, dtype: torch.dtype) -> nn.Module:
    model = copy.deepcopy(CASES["timm ViT"]().forward_func)
    with torch.no_grad():
        (model.head if place == "the head" else model.blocks[-1].mlp.fc2).weight *= 3e4
    return model.to(dtype)


@pytest.mark.parametrize("place", ["the last block", "the head"])
def test_a_model_that_overflows_in_half_precision(method, place):
    """Scores that are no numbers are refused; where they are infinite alone, a map that is none is."""
    case = CASES["timm ViT"]()
    make = cv.METHODS[method]
    try:
        found = explain(make(overflowing(place, torch.float16)), case)
    except cv.ModelStateError:
        assert method in IN_FULL_PRECISION
    except cv.InputError as refused:
        assert "model.bfloat16() or model.float()" in refused.hint
        assert all(explain(make(overflowing(place, wide)), case).isfinite().all() for wide in WIDER)
    else:
        assert place == "the head" and found.isfinite().all()


WIDER = (torch.bfloat16, torch.float32)


def test_maps_of_all_classes_that_overflow():
    case = CASES["timm ViT"]()
    inputs = case.inputs.clone()
    inputs[1] *= 1e20
    for method in (cv.LayerCDAM, cv.PredictionMap, cv.PredicAtt):
        with pytest.raises(cv.InputError, match="of sample 1\n"):
            method(case.forward_func).all_classes(inputs)
