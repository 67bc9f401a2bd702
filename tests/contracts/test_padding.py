"""Padding gets exactly zero, and changes nothing: seen in double precision, where rounding hides nothing."""

import warnings
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

import captum_vit as cv
from captum_vit.inputs.padding import padding_of
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import Pair, draws, explain
from tests.models import CASES, TEXTS

PADDING = 4
SAMPLING = {"LayerSmoothCDAM", "LayerIntegratedCDAM", "SmoothGrad"}  # dozens of passes
CUT_AT_ZERO = {
    "ALTI",
    "PLUS(ALTI)",
    "GradECLIP",
}  # a token that brings a row no nearer counts as nothing there, by definition


def maps(pair: Pair, inputs: Tensor, *mask: Tensor, rows: slice = slice(None)) -> Tensor:
    case = pair.exact._replace(inputs=inputs, additional_forward_args=mask, target=pair.case.target[rows])
    return explain(pair.on(case.forward_func), case)


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
        assert_close(found, maps(text_pair, ids[row, :length], mask[row, :length], rows=row), text_pair.rounding)
        assert_close(found, maps(text_pair, ids[row, :length], rows=row), text_pair.rounding)


def test_more_padding_changes_nothing(text_pair):
    if draws(text_pair.on()):
        return
    ids, (mask,) = text_pair.case.inputs, text_pair.case.additional_forward_args
    found = maps(text_pair, F.pad(ids, (0, PADDING)), F.pad(mask, (0, PADDING)))
    assert not found[:, -PADDING:].any()
    assert_close(found[:, :-PADDING], maps(text_pair, ids, mask), text_pair.rounding)


def test_ids_under_the_mask_change_nothing(text_pair):
    ids, (mask,) = text_pair.case.inputs, text_pair.case.additional_forward_args
    found = maps(text_pair, torch.where(mask.bool(), ids, 7), mask)
    assert_close(found, maps(text_pair, ids, mask), text_pair.rounding)


@pytest.mark.parametrize("text", TEXTS)
def test_all_classes_are_silent_under_the_mask_too(text):
    case = CASES[text]()
    (mask,) = case.additional_forward_args
    found = cv.PredictionMap(case.forward_func).all_classes(case.inputs, mask)
    assert found.shape == (*mask.shape, 5)
    assert not found[mask == 0].any()


@pytest.mark.parametrize("name", [pytest.param(m, marks=pytest.mark.slow) if m in SAMPLING else m for m in cv.METHODS])
def test_padding_without_a_mask_warns(name: str):
    """Where a row ends or begins in the model's padding token and no mask hides it; never where one does."""
    model, ids, mask = bert_in_float64(), torch.tensor([[2, 5, 6, 3, 0, 0], [2, 5, 6, 7, 8, 3]]), torch.ones(2, 6)
    method = cv.METHODS[name](model)
    attribute = method.attribute
    with pytest.warns(cv.PaddingWarning, match="Rows 0 ") as found:
        attribute(ids, target=1)
    assert [str(one.filename) for one in found if one.category is cv.PaddingWarning] == [__file__]
    with pytest.warns(cv.PaddingWarning, match="Rows 0, 1 "):
        attribute(torch.cat([ids.new_zeros(2, 1), ids], 1), target=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", cv.PaddingWarning)
        together = attribute(ids, target=1, additional_forward_args=mask)
        alone = attribute(ids[1:], target=1)
    if not draws(method):
        assert_close(together[1:], alone, Pair(name, "HF BERT").rounding)


@cache
def bert_in_float64() -> BertForSequenceClassification:
    """One model for all methods: what is found in it is found once."""
    return bert().double()


def bert() -> BertForSequenceClassification:
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**sizes, vocab_size=9, max_position_embeddings=8)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_all_classes_warn_of_padding_too():
    ids = torch.tensor([[2, 5, 6, 3, 0, 0]])
    for method in (cv.PredictionMap, cv.LayerCDAM):
        with pytest.warns(cv.PaddingWarning):
            method(bert()).all_classes(ids)


def test_a_padding_token_that_also_ends_texts():
    """One of it is an end."""
    model = bert()
    model.config.pad_token_id = model.config.eos_token_id = 3
    ids = torch.tensor([[2, 5, 6, 7, 3], [2, 5, 6, 3, 3], [2, 3, 3, 6, 7]])
    assert padding_of(model, ids).int().tolist() == [[0] * 5, [0, 0, 0, 1, 1], [0] * 5]
    assert padding_of(model, ids[::2]) is None and padding_of(torch.nn.Linear(2, 2), ids) is None
