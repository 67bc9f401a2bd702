"""Texts near to texts: the embedding by hand, padding, what is drawn, and what is refused."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

import captum_vit as cv
from quantus_metrics.token_arrays import wrap_text
from tests.contracts.fingerprint import fingerprint
from tests.models import redrawn

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "##ness", "film", "bad", "plot"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TEXTS = ["a good film", "bad plot"]
METHODS = ["GenAtt", "VTranM", "DecompX", "LayerCDAM", "PredictionMap", "TransAttr", "AttnGrad", "InputXGradient"]
EXACT = {"rtol": 1e-9, "atol": 1e-11}


def bert(kind: type = BertModel) -> Any:
    torch.manual_seed(0)
    return redrawn(kind(BertConfig(**SIZES, vocab_size=len(WORDS), max_position_embeddings=12))).double()


@pytest.fixture
def encoder() -> nn.Module:
    return bert()


@pytest.fixture
def tokenizer() -> BertTokenizerFast:
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)})


@pytest.fixture
def near(encoder: nn.Module, tokenizer: BertTokenizerFast) -> cv.SentenceSimilarity:
    return cv.SentenceSimilarity.from_texts(encoder, tokenizer, TEXTS)


def batch(tokenizer: BertTokenizerFast, *texts: str, side: str = "right") -> tuple[Tensor, Tensor]:
    encoded = tokenizer(list(texts), return_tensors="pt", padding=True, padding_side=side)
    return encoded["input_ids"], encoded["attention_mask"]


def by_hand(encoder: nn.Module, tokenizer: BertTokenizerFast, text: str, pooling: str = "mean") -> Tensor:
    """A text's unit embedding, of the text alone: the states of its tokens, added up one by one."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = list(encoder(ids).last_hidden_state[0])
    found = states[0] if pooling == "cls" else sum(states) / len(states)
    return found / found.pow(2).sum().sqrt()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_it_is_the_cosine_of_two_embeddings(encoder, tokenizer, pooling: str, side: str) -> None:
    if side == "left":
        encoder.embeddings.position_embeddings.weight.data[:] = 0.1  # BERT numbers padding too
    near = cv.SentenceSimilarity.from_texts(encoder, tokenizer, TEXTS, pooling=pooling)
    given = ["good film", "a bad goodness plot", "film"]
    with torch.no_grad():
        found = near(*batch(tokenizer, *given, side=side))
    mine, theirs = ([by_hand(encoder, tokenizer, one, pooling) for one in texts] for texts in (given, TEXTS))
    torch.testing.assert_close(found, torch.stack(mine) @ torch.stack(theirs).T, **EXACT)
    torch.testing.assert_close(near.text_embeddings, torch.stack(theirs), **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_no_map(near, tokenizer, method: str) -> None:
    """Each row is explained as that text by itself, with a mask of ones or with none."""
    texts = ["a bad goodness plot", "film"]
    ids, mask = batch(tokenizer, *texts)
    attribution = cv.METHODS[method](near)
    together = attribution.attribute(ids, [1, 0], (mask,))
    assert not together[mask == 0].any()
    for row, (text, target) in enumerate(zip(texts, (1, 0), strict=True)):
        alone, ones = batch(tokenizer, text)
        for args in (None, (ones,)):
            found = attribution.attribute(alone, target, args)
            torch.testing.assert_close(together[row : row + 1, : alone.shape[1]], found, rtol=1e-6, atol=1e-9)


def test_a_class_token_is_read_alone(encoder, tokenizer) -> None:
    """As a model that gives the first token's cosine itself."""

    class First(nn.Module):
        def __init__(self, model: nn.Module, bank: Tensor) -> None:
            super().__init__()
            self.model, self.bank = model, bank

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            states = self.model(ids, mask).last_hidden_state[:, 0]
            return nn.functional.normalize(states, dim=-1) @ self.bank.T

    near = cv.SentenceSimilarity.from_texts(encoder, tokenizer, TEXTS, pooling="cls")
    ids, mask = batch(tokenizer, "a bad goodness plot", "film")
    for method in ("GenAtt", "LayerCDAM", "DecompX"):
        found, wanted = (
            cv.METHODS[method](model).attribute(ids, 1, (mask,))
            for model in (near, First(encoder, near.text_embeddings).eval())
        )
        torch.testing.assert_close(found, wanted, **EXACT)


def test_one_pass_for_the_texts_and_one_for_a_call(encoder, tokenizer) -> None:
    passes: list[bool] = []
    handle = encoder.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    before = fingerprint(encoder)
    near = cv.SentenceSimilarity.from_texts(encoder, tokenizer, TEXTS)
    assert passes == [False] and fingerprint(encoder) == before
    assert not near.text_embeddings.requires_grad and near.names == TEXTS
    near(*batch(tokenizer, "film", "a plot"))
    assert len(passes) == 2
    handle.remove()


def test_ready_embeddings_of_any_length(encoder, tokenizer, near) -> None:
    ids, mask = batch(tokenizer, "a bad plot")
    found = cv.SentenceSimilarity(encoder, 7 * near.text_embeddings)
    torch.testing.assert_close(found(ids, mask), near(ids, mask), **EXACT)
    assert found.names is None


def test_words_are_drawn_for_texts_by_name(near, tokenizer) -> None:
    found = cv.explain(near, "a goodness plot", TEXTS, "DecompX", tokenizer=tokenizer, words=True, special=False)
    assert found.labels == TEXTS and not found.probabilities
    assert found.text().words == ("a", "goodness", "plot")
    with torch.no_grad():
        assert found.scores == pytest.approx(near(*batch(tokenizer, "a goodness plot"))[0].tolist())


def test_a_pair_of_texts_reaches_the_encoder(near, tokenizer) -> None:
    """Token types behind the mask, as explain and wrap_text hand them in."""
    encoded = tokenizer("a film", "good", return_tensors="pt")
    ids, args = encoded["input_ids"], (encoded["attention_mask"], encoded["token_type_ids"])
    found = cv.explain(near, ("a film", "good"), TEXTS[0], "GenAtt", tokenizer=tokenizer)
    torch.testing.assert_close(found.map, cv.GenAtt(near).attribute(ids, 0, args)[0])
    with torch.no_grad():
        torch.testing.assert_close(wrap_text(near, tokenizer)(ids), near(ids, *args))
        assert not torch.equal(near(ids, *args), near(ids, args[0]))


def test_a_margin_is_the_difference_of_two_similarities(near, tokenizer) -> None:
    ids, mask = batch(tokenizer, "a bad goodness plot")
    a, b = (cv.DecompX(near).attribute(ids, k, (mask,)) for k in (0, 1))
    torch.testing.assert_close(cv.DecompX(cv.Margin(near, 0, 1)).attribute(ids, 0, (mask,)), a - b, **EXACT)


def test_half_precision(tokenizer) -> None:
    half = copy.deepcopy(bert()).bfloat16()
    near = cv.SentenceSimilarity.from_texts(half, tokenizer, TEXTS)
    ids, mask = batch(tokenizer, "a bad goodness plot")
    exact = cv.SentenceSimilarity.from_texts(bert(), tokenizer, TEXTS)
    torch.testing.assert_close(near(ids, mask).double(), exact(ids, mask), rtol=0, atol=0.05)


def test_padding_without_a_mask_is_refused(near, tokenizer) -> None:
    """The mean would take it in; the advice, followed, gives the map."""
    ids, mask = batch(tokenizer, "a bad goodness plot", "film")
    with pytest.raises(cv.InputError, match="which tokens are text") as refused:
        cv.GenAtt(near).attribute(ids, 0)
    assert "attention mask" in refused.value.hint
    assert cv.GenAtt(near).attribute(ids, 0, (mask,)).shape == ids.shape


class Plain(nn.Module):
    """Gives whatever it is told to."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output, self.weight = output, nn.Parameter(torch.zeros(1))

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        return self.output


@pytest.mark.parametrize(
    "model",
    [bert(BertForSequenceClassification), Plain((torch.zeros(2, 5, 4),)),
     Plain(SimpleNamespace(last_hidden_state=torch.zeros(2, 1, 4)))],
    ids=["a classifier", "a tuple", "states of other tokens"],
)  # fmt: skip
def test_a_model_without_a_state_for_each_token_is_refused(model: nn.Module, tokenizer) -> None:
    with pytest.raises(cv.UnsupportedModelError, match="last_hidden_state") as refused:
        cv.SentenceSimilarity.from_texts(model.eval(), tokenizer, TEXTS)
    assert "AutoModel" in refused.value.hint


def test_a_mask_that_is_added_to_attention_is_refused(near, tokenizer) -> None:
    """A mean with its numbers as weights would be of padding alone."""
    ids, mask = batch(tokenizer, "a bad goodness plot", "film")
    with pytest.raises(cv.InputError, match="one that holds -10000"):
        near(ids, (1 - mask) * -1e4)
    for kept in (mask.bool(), mask.double()):
        torch.testing.assert_close(near(ids, kept), near(ids, mask))


def test_a_tokenizer_without_masks_is_refused(encoder) -> None:
    with pytest.raises(cv.OptionError, match="attention mask"):
        cv.SentenceSimilarity.from_texts(encoder, lambda texts, **_: {"input_ids": torch.tensor([[2, 5, 3]])}, ["a"])


def test_what_does_not_fit_is_refused(encoder, tokenizer, near) -> None:
    ids, mask = batch(tokenizer, "a bad goodness plot", "film")
    with pytest.raises(cv.InputError, match="shape"):
        near(ids, mask[:, :2])
    with pytest.raises(cv.InputError, match="Token ids"):
        near(torch.randn(2, 3, 8, 8))
    with pytest.raises(cv.InputError, match="As many numbers"):
        cv.SentenceSimilarity(encoder, torch.randn(2, 7))(ids, mask)
    with pytest.raises(cv.InputError, match="at most 12 tokens"):
        cv.SentenceSimilarity.from_texts(encoder, tokenizer, ["a film " * 9])
    with pytest.raises(cv.ModelStateError):
        cv.SentenceSimilarity.from_texts(bert().train(), tokenizer, TEXTS)
