"""The shipped classifier is what its card says."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification, BertTokenizer

import captum_vit as cv
from captum_vit.demo import demo_bert, demo_bert_tokenizer, generated_reviews
from captum_vit.demo.reviews import read
from captum_vit.demo.reviews.evaluation import effect, evaluate
from captum_vit.demo.reviews.model import FOLDER, WEIGHTS
from captum_vit.demo.reviews.train import parts

FOR_SURE = {"PLUS(DecompX)", "DecompX", "GenAtt"}


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    return demo_bert()


def test_it_is_an_ordinary_bert(model: BertForSequenceClassification) -> None:
    assert type(model) is BertForSequenceClassification and not model.training
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert type(demo_bert_tokenizer()) is BertTokenizer
    assert len(demo_bert_tokenizer()) == model.config.vocab_size


def test_transformers_reads_the_same_from_the_folder(model: BertForSequenceClassification) -> None:
    other, tokenizer = AutoModelForSequenceClassification.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
    batch = tokenizer(["The soup was hardly a success.", "We loved it."], padding=True, return_tensors="pt")
    assert torch.equal(
        batch["input_ids"],
        demo_bert_tokenizer()(["The soup was hardly a success.", "We loved it."], padding=True, return_tensors="pt")[
            "input_ids"
        ],
    )
    with torch.no_grad():
        torch.testing.assert_close(other(**batch).logits, model(**batch).logits)


def test_explain_finds_its_tokenizer(model: BertForSequenceClassification) -> None:
    found = cv.explain(model, "The soup was not charming.", words=True, special=False)
    assert found.labels == ["negative"]
    assert found.text().words == ("the", "soup", "was", "not", "charming", ".")


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 2_000_000
    assert WEIGHTS.with_suffix(".md").exists()


@pytest.mark.slow
def test_it_reads_held_out_reviews(model: BertForSequenceClassification) -> None:
    accuracy = evaluate(model, seed=1, n=300)
    assert accuracy.plain > 0.97 and accuracy.negated > 0.95


@pytest.mark.slow
def test_what_a_logit_is_about(model: BertForSequenceClassification) -> None:
    """The rationale; of a negated opinion, the negator turns the label round."""
    found = effect(model, seed=1, n=300)
    assert found.rationale > 1 and found.negator > found.rationale
    assert found.rest_share < 0.15 and found.least > 0.94
    assert found.words_rest > 8 * found.words_rationale


@pytest.mark.slow
@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("name", sorted(FOR_SURE))
def test_the_most_relevant_word_is_of_the_rationale(model, name: str, negated: bool) -> None:
    found = generated_reviews(100, seed=5, negated=negated)
    tokens = read(found, demo_bert_tokenizer())
    maps = cv.METHODS[name](model).attribute(tokens.ids, found.labels, (tokens.mask,))
    assert tokens.points_at_rationale(maps).float().mean() >= 0.95


def test_half_of_the_answer_where_there_is_no_opinion() -> None:
    (found, targets), (silent, halves) = parts(8, 3, seed=0)
    assert len(found.ids) == 5 and found.rationale.any(1).all()
    assert len(silent.ids) == 3 and not silent.rationale.any()
    assert targets.sum(1).eq(1).all() and targets.max() == 1 and halves.eq(0.5).all()
    assert len(list(parts(8, 0, seed=0))) == 1
