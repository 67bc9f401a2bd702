"""Heads that score every token: token classification, question answering, masked words; targets are tuples."""

import copy
from functools import cache

import pytest
import torch
import transformers
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.models.output import scores_of
from captum_vit.trace.record.record import Want, record
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.contracts.pairs import draws
from tests.models import CLASSES, DEBERTA, SIZES, VOCABULARY, WINDOW, padded, redrawn

PLACES = [(8, 1), (2, 0), (3, 1)]  # (position, class), one for each sample
HEADS = {
    "BERT tags": ("Bert", "TokenClassification", {}),
    "DeBERTa tags": ("DebertaV2", "TokenClassification", DEBERTA | {"conv_kernel_size": 3}),
    "ModernBERT tags": ("ModernBert", "TokenClassification", WINDOW),
    "BERT words": ("Bert", "MaskedLM", {}),
    "ModernBERT words": ("ModernBert", "MaskedLM", WINDOW),
    "RoBERTa answers": ("Roberta", "QuestionAnswering", {"pad_token_id": 0}),
    "DistilBERT answers": (
        "DistilBert", "QuestionAnswering", {"dim": 24, "n_layers": 3, "n_heads": 3, "hidden_dim": 48}
    ),
}  # fmt: skip
EVERY = [  # each method on one head, the next on the next; each on each with --full
    pytest.param(head, method, marks=() if (place + turn) % len(HEADS) == 0 else pytest.mark.full)
    for place, head in enumerate(HEADS)
    for turn, method in enumerate(cv.METHODS)
]


@cache
def built(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """In float64: the model, ids and mask of a padded batch."""
    torch.manual_seed(0)
    family, head, options = HEADS[name]
    labels = {} if head == "QuestionAnswering" else {"num_labels": CLASSES}
    config = getattr(transformers, f"{family}Config")(**SIZES | VOCABULARY | options, **labels)
    model = redrawn(getattr(transformers, f"{family}For{head}")(config)).double()
    return (cv.AnswerSpan(model) if "answers" in name else model, *padded())


@pytest.mark.slow
@pytest.mark.parametrize(("head", "name"), EVERY)
def test_every_method_explains_a_token(head: str, name: str):
    """Padding gets nothing and changes nothing; a list of tuples is one target for each sample."""
    model, ids, mask = built(head)
    method = cv.METHODS[name](model)
    together = method.attribute(ids, target=PLACES, additional_forward_args=mask)
    assert together.shape == ids.shape
    assert together.isfinite().all() and together.any(1).all() and not together[mask == 0].any()
    if draws(method):
        return
    for i, length in enumerate(mask.sum(1).tolist()):
        alone = method.attribute(ids[i : i + 1, :length], target=PLACES[i])
        assert (together[i, :length] - alone[0]).abs().max() < 1e-12 * alone.abs().max().clamp(min=1)


@pytest.mark.parametrize("head", HEADS)
def test_the_row_that_is_read_is_the_targets(head: str):
    model, ids, mask = built(head)
    with undisturbed(model):
        found = record(
            Pass(model, (ids,), (mask,), cv.spec_of(model, ids, mask)), PLACES, Want(seen=["probs"], row="outputs")
        )
        all_rows = record(Pass(model, (ids,), (mask,), cv.spec_of(model, ids, mask)), None, Want(row="outputs"))
    wanted = torch.nn.functional.one_hot(torch.tensor([8, 2, 3]), 9).double()
    assert torch.equal(found.row.squeeze(1), wanted)
    attention = cv.RawAttention(model).attribute(ids, PLACES, mask)
    assert torch.allclose(attention[1], found.seen["probs"][2][1, :, 2].mean(0), rtol=1e-12)
    assert (all_rows.row.squeeze(1) > 0).sum(1).min() > 1


@pytest.mark.parametrize("head", HEADS)
def test_the_prediction_map_at_the_token_is_the_prediction(head: str):
    model, ids, mask = built(head)
    method = cv.PredictionMap(model, score="logit")
    found = method.attribute(ids, PLACES, mask)
    with torch.no_grad():
        scores = scores_of(model(ids, mask))
    for i, (position, label) in enumerate(PLACES):
        assert (found[i, position] - scores[i, position, label]).abs() < 1e-10
    readings = method.all_classes(ids, mask)
    assert readings.shape == scores.shape
    assert (readings - scores)[mask == 1].abs().max() < 1e-10


@pytest.mark.parametrize("head", HEADS)
def test_without_biases_the_decomposition_is_complete(head: str):
    model, ids, mask = built(head)
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "bias" in name.rpartition(".")[2]:
                values.zero_()
        scores = scores_of(model(ids, mask))
    total = cv.DecompX(model).attribute(ids, PLACES, mask).sum(1)
    logits = torch.stack([scores[i, p, k] for i, (p, k) in enumerate(PLACES)])
    assert ((total - logits) / logits).abs().max() < 1e-6


def test_start_and_end_are_two_outputs_of_each_token():
    span, ids, mask = built("RoBERTa answers")
    said = span.model(ids, mask)
    assert torch.equal(span(ids, mask), torch.stack([said.start_logits, said.end_logits], -1))
    starts = cv.Scalar(span.model, lambda output: output.start_logits)
    found = cv.LayerCDAM(span).attribute(ids, (2, 0), mask)
    assert torch.equal(found, cv.LayerCDAM(starts).attribute(ids, 2, mask))
    assert not torch.equal(found, cv.LayerCDAM(span).attribute(ids, (2, 1), mask))


def test_two_answers_without_a_target_module_are_refused():
    span, ids, mask = built("RoBERTa answers")
    with pytest.raises(cv.TraceError, match="AnswerSpan"):
        cv.LayerCDAM(span.model).attribute(ids, 2, mask)


@pytest.mark.parametrize("target", [None, (9, 0), (3, CLASSES), (3, 0, 0), [(3, 0)], [1, 2, 3]])
def test_targets_that_name_no_score_are_refused(target):
    model, ids, mask = built("BERT tags")
    for method in ("LayerCDAM", "PredictionMap", "GenAtt"):
        with pytest.raises(cv.TargetError):
            cv.METHODS[method](model).attribute(ids, target, mask)
