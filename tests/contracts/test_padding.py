"""Padding gets exactly zero, and changes nothing: seen in double precision, where rounding hides nothing."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import captum_vit as cv
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import IN_FULL_PRECISION, Pair, draws, explain
from tests.models import CASES, TEXTS

PADDING = 4
CUT_AT_ZERO = {"ALTI", "PLUS(ALTI)"}  # a token that brings a row no nearer counts as nothing there, by definition


def maps(pair: Pair, inputs: Tensor, *mask: Tensor, rows: slice = slice(None)) -> Tensor:
    model = copy.deepcopy(pair.case.forward_func).double()
    case = pair.case._replace(inputs=inputs, additional_forward_args=mask, target=pair.case.target[rows])
    return explain(pair.on(model), case)


def rounding(pair: Pair) -> str:
    return "float64, divided by sums near zero" if pair.method in IN_FULL_PRECISION else "float64"


def test_padding_gets_exactly_zero(text_pair):
    """And real tokens, special ones included, get their share."""
    ids, (mask,) = text_pair.case.inputs, text_pair.case.additional_forward_args
    found = maps(text_pair, ids, mask)
    assert found.shape == ids.shape
    assert not found[mask == 0].any()
    share = found[mask == 1].bool().double().mean()
    assert share == 1 or (text_pair.method in CUT_AT_ZERO and share > 0.5)


def test_padding_changes_nothing(text_pair):
    """Each row as it is without padding, with a mask of ones or with none."""
    if draws(text_pair.on()):
        return
    ids, (mask,) = text_pair.case.inputs, text_pair.case.additional_forward_args
    together = maps(text_pair, ids, mask)
    for i, length in enumerate(mask.sum(1).tolist()):
        row = slice(i, i + 1)
        found = together[row, :length]
        assert_close(found, maps(text_pair, ids[row, :length], mask[row, :length], rows=row), rounding(text_pair))
        assert_close(found, maps(text_pair, ids[row, :length], rows=row), rounding(text_pair))


def test_more_padding_changes_nothing(text_pair):
    if draws(text_pair.on()):
        return
    ids, (mask,) = text_pair.case.inputs, text_pair.case.additional_forward_args
    found = maps(text_pair, F.pad(ids, (0, PADDING)), F.pad(mask, (0, PADDING)))
    assert not found[:, -PADDING:].any()
    assert_close(found[:, :-PADDING], maps(text_pair, ids, mask), rounding(text_pair))


def test_ids_under_the_mask_change_nothing(text_pair):
    ids, (mask,) = text_pair.case.inputs, text_pair.case.additional_forward_args
    found = maps(text_pair, torch.where(mask.bool(), ids, 7), mask)
    assert_close(found, maps(text_pair, ids, mask), rounding(text_pair))


@pytest.mark.parametrize("text", TEXTS)
def test_all_classes_are_silent_under_the_mask_too(text):
    case = CASES[text]()
    (mask,) = case.additional_forward_args
    found = cv.PredictionMap(case.forward_func).all_classes(case.inputs, mask)
    assert found.shape == (*mask.shape, 5)
    assert not found[mask == 0].any()
