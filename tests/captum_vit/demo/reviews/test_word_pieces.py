"""From relevance of word pieces to relevance of words."""

import pytest
import torch
from transformers import BertTokenizer

from captum_vit.demo import demo_bert_tokenizer, generated_reviews
from captum_vit.demo.reviews import read


def test_every_token_knows_its_word() -> None:
    found, tokenizer = generated_reviews(40, seed=1), demo_bert_tokenizer()
    tokens = read(found, tokenizer)
    assert tokens.ids.shape == tokens.mask.shape == tokens.word.shape
    assert tokens.rationale.shape == tokens.present.shape
    split = False
    for ids, word, words in zip(tokens.ids, tokens.word, found.words, strict=True):
        for i, whole in enumerate(words):
            pieces = tokenizer.convert_ids_to_tokens(ids[word == i].tolist())
            split |= len(pieces) > 1
            assert "".join(piece.removeprefix("##") for piece in pieces) == whole.lower()
        assert set(tokenizer.convert_ids_to_tokens(ids[word < 0].tolist())) <= {"[CLS]", "[SEP]", "[PAD]"}
    assert split
    assert torch.equal(tokens.present.sum(1), torch.tensor([len(words) for words in found.words]))
    assert torch.equal(tokens.rationale.sum(1), torch.tensor([sum(decides) for decides in found.rationale]))


def test_a_word_has_the_sum_of_its_pieces() -> None:
    tokens = read(generated_reviews(10), demo_bert_tokenizer())
    relevance = torch.randn(tokens.ids.shape, dtype=torch.float64)
    of_words = tokens.by_word(relevance)
    for i in range(10):
        for w in range(tokens.present.shape[1]):
            torch.testing.assert_close(of_words[i, w], relevance[i][tokens.word[i] == w].sum())


def test_pointing_minds_signs_and_ignores_tokens_of_no_word() -> None:
    tokens = read(generated_reviews(10), demo_bert_tokenizer())
    inside = tokens.word >= 0
    decides = torch.zeros(tokens.ids.shape)
    decides[inside] = tokens.rationale.float()[inside.nonzero()[:, 0], tokens.word[inside]]
    assert tokens.points_at_rationale(decides).all()
    assert not tokens.points_at_rationale(-decides).any()
    assert not tokens.points_at_rationale(1 - 2 * decides).any()
    assert tokens.points_at_rationale(decides - 1).all()  # [PAD] has nothing to lose, and is no word
    assert tokens.points_at_rationale(torch.where(inside, decides, 9.0)).all()


def test_a_tokenizer_that_cuts_otherwise_is_refused() -> None:
    other = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}, model_max_length=6)
    with pytest.raises(ValueError, match="BERT kind"):
        read(generated_reviews(2), lambda texts, **options: other(texts, truncation=True, **options))  # type: ignore[arg-type]
