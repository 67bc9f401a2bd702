"""Targets in every form that Captum takes, and the errors it raises where one is wrong."""

import pytest
import torch

import captum_vit as cv
from captum_vit.models.naming import n_outputs
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import draws, explain, knows_targets, rows

ONE_FOR_ALL = {
    "one-element tensor": torch.tensor([3]),
    "scalar tensor": torch.tensor(3),
    "list": [3, 3, 3],
    "tensor": torch.tensor([3, 3, 3]),
    "NumPy integer": torch.tensor(3).numpy()[()],
    "NumPy array": torch.tensor([3, 3, 3]).numpy(),
    "tuple": (3,),
}
WRONG = {
    "missing": None,
    "out of range": 99,
    "one out of range": [0, 99, 0],
    "too few": [1, 2],
    "too many": [1, 2, 3, 4],
    "too many dimensions": (1, 1),
    "not whole": torch.tensor([0.5, 1.0, 2.0]),
}


@pytest.mark.parametrize("form", ONE_FOR_ALL)
def test_forms_of_one_target_agree(slice_pair, form):
    wanted = explain(slice_pair.on(), slice_pair.case, target=3)
    found = explain(slice_pair.on(), slice_pair.case, target=ONE_FOR_ALL[form])
    assert_close(found, wanted, "same computation")


@pytest.mark.parametrize("form", [list, torch.tensor], ids=["list", "tensor"])
def test_a_target_for_each_sample(pair, form):
    if draws(pair.on()) or not knows_targets(pair):
        return
    together = explain(pair.to_compare(), pair.case, target=form(pair.case.target))
    for i in range(3):
        alone = rows(pair.case, slice(i, i + 1))._replace(target=pair.case.target[i])
        assert_close(together[i : i + 1], explain(pair.to_compare(), alone), "other batch")


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_targets_are_refused(slice_pair, kind):
    """Raised as what Captum raises there, and as our own."""
    head = n_outputs(slice_pair.case.forward_func)
    ignored = "missing", "too many dimensions", *(() if head else ("out of range", "one out of range"))
    if not knows_targets(slice_pair) and kind in ignored:  # nothing is picked by it, and no pass asks
        explain(slice_pair.on(), slice_pair.case, target=WRONG[kind])
        return
    with pytest.raises(cv.TargetError) as refused:
        explain(slice_pair.on(), slice_pair.case, target=WRONG[kind])
    assert isinstance(refused.value, AssertionError)
    assert refused.value.got


@pytest.mark.parametrize("target", [None, 0])
def test_a_single_output_needs_no_target(slice_pair, target):
    margin = cv.Margin(slice_pair.case.forward_func, 1, 2)
    explain(slice_pair.on(margin), slice_pair.case, target=target)
