"""Padding gets exactly zero, and changes nothing: seen in double precision, where rounding hides nothing."""

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

import captum_vit as cv
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import draws, explain
from tests.models import CASES, Case

PADDING = 4


def bert() -> Case:
    case = CASES["HF BERT"]()
    return case._replace(forward_func=copy.deepcopy(case.forward_func).double())


def maps(method: str, ids: Tensor, *mask: Tensor) -> Tensor:
    case = bert()._replace(inputs=ids, additional_forward_args=mask)
    return explain(cv.METHODS[method](case.forward_func), case)


def alone(method: str, i: int, length: int, masked: bool) -> Tensor:
    """The i-th sample by itself, without its padding."""
    case = bert()
    (mask,) = case.additional_forward_args
    case = case._replace(
        inputs=case.inputs[i : i + 1, :length],
        additional_forward_args=(mask[i : i + 1, :length],) if masked else (),
        target=case.target[i : i + 1],
    )
    return explain(cv.METHODS[method](case.forward_func), case)


def test_padding_gets_exactly_zero(method):
    """And real tokens, special ones included, get their share."""
    ids, (mask,) = bert().inputs, bert().additional_forward_args
    found = maps(method, ids, mask)
    assert found.shape == ids.shape
    assert not found[mask == 0].any()
    assert found[mask == 1].all()


def test_padding_changes_nothing(method):
    """Each row as it is without padding, with a mask of ones or with none."""
    case = bert()
    if draws(cv.METHODS[method](case.forward_func)):
        return
    (mask,) = case.additional_forward_args
    together = maps(method, case.inputs, mask)
    for i, length in enumerate(mask.sum(1).tolist()):
        row = together[i : i + 1, :length]
        assert_close(row, alone(method, i, length, masked=True), "float64")
        assert_close(row, alone(method, i, length, masked=False), "float64")


def test_more_padding_changes_nothing(method):
    case = bert()
    if draws(cv.METHODS[method](case.forward_func)):
        return
    (mask,) = case.additional_forward_args
    found = maps(method, F.pad(case.inputs, (0, PADDING)), F.pad(mask, (0, PADDING)))
    assert not found[:, -PADDING:].any()
    assert_close(found[:, :-PADDING], maps(method, case.inputs, mask), "float64")


def test_ids_under_the_mask_change_nothing(method):
    case = bert()
    (mask,) = case.additional_forward_args
    found = maps(method, torch.where(mask.bool(), case.inputs, 7), mask)
    assert_close(found, maps(method, case.inputs, mask), "float64")


def test_all_classes_are_silent_under_the_mask_too():
    case = bert()
    (mask,) = case.additional_forward_args
    found = cv.PredictionMap(case.forward_func).all_classes(case.inputs, mask)
    assert found.shape == (*mask.shape, 5)
    assert not found[mask == 0].any()
