"""Targets in every form that Captum takes, and the errors it raises where one is wrong."""

from functools import cache

import pytest
import torch

import captum_vit as cv
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import draws, explain, knows_targets, rows
from tests.models import CASES, TIMM, Case, redrawn, timm_vit

ONE_FOR_ALL = {
    "one-element tensor": torch.tensor([3]),
    "scalar tensor": torch.tensor(3),
    "list": [3, 3, 3],
    "tensor": torch.tensor([3, 3, 3]),
    "NumPy integer": torch.tensor(3).numpy()[()],
    "NumPy array": torch.tensor([3, 3, 3]).numpy(),
    "tuple": (3,),
    "tuple of a NumPy integer": (torch.tensor(3).numpy()[()],),
}
WRONG = {
    "missing": None,
    "out of range": 99,
    "one out of range": [0, 99, 0],
    "too few": [1, 2],
    "too many": [1, 2, 3, 4],
    "too many dimensions": (1, 1),
    "far too many dimensions": (9999,) * 20,
    "not whole": torch.tensor([0.5, 1.0, 2.0]),
}


@pytest.mark.along("form", ONE_FOR_ALL)
def test_forms_of_one_target_agree(slice_pair, form):
    wanted = explain(slice_pair.on(), slice_pair.case, target=3)
    found = explain(slice_pair.on(), slice_pair.case, target=ONE_FOR_ALL[form])
    assert_close(found, wanted, "same computation")


@pytest.mark.parametrize("form", ONE_FOR_ALL)
def test_every_form_is_read(form):
    case = CASES["timm ViT"]()
    found, wanted = (explain(cv.LayerCDAM(case.forward_func), case, target=t) for t in (ONE_FOR_ALL[form], 3))
    assert_close(found, wanted, "same computation")


@pytest.mark.along("form", [list, torch.tensor], ["list", "tensor"])
def test_a_target_for_each_sample(pair, form):
    case = pair.exact
    method = pair.on(case.forward_func)
    if draws(method) or not knows_targets(pair):
        return
    together = explain(method, case, target=form(case.target))
    for i in range(3):
        alone = rows(case, slice(i, i + 1))._replace(target=case.target[i])
        assert_close(together[i : i + 1], explain(method, alone), pair.rounding)


@pytest.mark.along("kind", WRONG)
def test_wrong_targets_are_refused(slice_pair, kind):
    """Raised as what Captum raises there, and as our own."""
    if kind == "missing" and not knows_targets(
        slice_pair
    ):  # it needs none; one that is given is asked for all the same
        explain(slice_pair.on(), slice_pair.case, target=WRONG[kind])
        return
    with pytest.raises(cv.TargetError) as refused:
        explain(slice_pair.on(), slice_pair.case, target=WRONG[kind])
    assert isinstance(refused.value, AssertionError)
    assert refused.value.got


@pytest.mark.along("target", [None, 0])
def test_a_single_output_needs_no_target(slice_pair, target):
    margin = cv.Margin(slice_pair.case.forward_func, 1, 2)
    explain(slice_pair.on(margin), slice_pair.case, target=target)


# -- outputs of more dimensions ------------------------------------------------------------------------------------

IN_PART = {"an int": 3, "a list": [3, 0, 1], "a tensor": torch.tensor([3, 0, 1]), "a tuple": (1,)}


@cache
def dense() -> Case:
    """Features of every token, (B, N, D), as ``global_pool=""`` and a ViTModel without pooler give them."""
    model = redrawn(timm_vit(**TIMM | {"global_pool": "", "num_classes": 0, "depth": 2}))
    return CASES["timm ViT"]()._replace(forward_func=model)


def test_a_target_in_part_is_refused(method):
    """It picks many numbers of a sample, whose sum nobody asked for."""
    for target in IN_PART.values():
        with pytest.raises(cv.TargetError) as refused:
            explain(cv.METHODS[method](dense().forward_func), dense(), target=target)
        assert "(3, 17, 24)" in refused.value.wanted


def test_a_target_for_every_dimension(method):
    """What the refusal advises: a tuple with an index for each, or one for each sample."""
    found, alike = (
        explain(cv.METHODS[method](dense().forward_func), dense(), target=t) for t in ((0, 2), [(0, 2)] * 3)
    )
    assert_close(found, alike, "same computation")


def test_explain_refuses_a_target_in_part():
    with pytest.raises(cv.TargetError, match="one for each dimension"):
        cv.explain(dense().forward_func, dense().inputs[:1], 3)
