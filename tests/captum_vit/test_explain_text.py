"""`explain` on texts: words, pairs, single tokens, and how they are shown."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizerFast,
    PreTrainedTokenizerFast,
)

import captum_vit as cv
from captum_vit.explain import explain
from tests.models import clip_model

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "##ness", "film"]


@pytest.fixture
def bert() -> BertForSequenceClassification:
    return BertForSequenceClassification(
        BertConfig(**SMALL, vocab_size=len(WORDS), id2label={0: "bad", 1: "good"})
    ).eval()


@pytest.fixture
def tokenizer() -> BertTokenizerFast:
    return BertTokenizerFast(vocab={word: index for index, word in enumerate(WORDS)})


def test_a_text_is_explained_word_by_word(bert, tokenizer):
    found = explain(bert, "a goodness film", ["good", 0], tokenizer=tokenizer)
    assert found.tokens == ["[CLS]", "a", "good", "##ness", "film", "[SEP]"]
    assert found.map.shape == (2, 6)
    assert "goodness" not in found._repr_html_() and "film" in found._repr_html_()
    assert found._repr_png_() is None


def test_words_are_merged_and_special_tokens_hidden_by_choice(bert, tokenizer):
    plain = explain(bert, "a goodness film", 1, tokenizer=tokenizer)
    found = explain(bert, "a goodness film", 1, tokenizer=tokenizer, special=False, words=True)
    assert torch.equal(found.map, plain.map)
    assert found.text().words == ("a", "goodness", "film")
    assert found.text().scores[0, 1].item() == pytest.approx(found.map[2:4].sum().item())
    assert "goodness" in found._repr_html_() and "[CLS]" not in found._repr_html_()
    assert found.text(special=True).words == ("[CLS]", "a", "goodness", "film", "[SEP]")
    assert len(plain.text().records(pred_prob=0.5)) == 1
    assert found.show(width=3).get_figwidth() == 3


def test_a_pair_of_texts(bert, tokenizer, tmp_path: Path):
    found = explain(bert, ("a film", "good"), ["good", "bad"], tokenizer=tokenizer)
    encoded = tokenizer("a film", "good", return_tensors="pt")
    args = (encoded["attention_mask"], encoded["token_type_ids"])
    assert torch.equal(found.maps[0], cv.LayerCDAM(bert).attribute(encoded["input_ids"], 1, args)[0])
    assert found.segments == [0, 0, 0, 0, 1, 1]
    page = found.save(tmp_path / "pair.html", special=False).read_text(encoding="utf-8")
    assert page.count("<p ") == 4 and "[SEP]" not in page
    single = explain(bert, "a film good", "good", tokenizer=tokenizer)
    assert found.scores[0] != single.scores[0]


def test_tokens_are_targets_by_name(tokenizer):
    model = BertForTokenClassification(BertConfig(**SMALL, vocab_size=len(WORDS), id2label={0: "O", 1: "PER"})).eval()
    found = explain(model, "a good film", [(2, "PER"), (2, 0)], tokenizer=tokenizer)
    ids = tokenizer("a good film", return_tensors="pt")["input_ids"]
    assert torch.equal(found.maps[0], cv.LayerCDAM(model).attribute(ids, (2, 1))[0])
    assert found.labels == ["PER at 2, good", "O at 2, good"] and sum(found.scores) == pytest.approx(1)
    span = cv.AnswerSpan(BertForQuestionAnswering(BertConfig(**SMALL, vocab_size=len(WORDS))).eval())
    answer = explain(span, ("a film", "good"), (4, "end"), tokenizer=tokenizer)
    assert answer.labels == ["end at 4, good"] and not answer.probabilities
    for target in (None, (9, "PER"), (2, "LOC")):
        with pytest.raises(cv.TargetError):
            explain(model, "a good film", target, tokenizer=tokenizer)


def test_words_that_match_a_picture():
    model, tokenizer = clip_model(), BertTokenizerFast(vocab={word: i for i, word in enumerate([*WORDS, "dog"])})
    model.text_model.eos_token_id = WORDS.index("[SEP]")
    words = cv.ImageSimilarity.from_images(model, {"this": torch.randn(2, 3, 32, 32)})
    found = explain(words, "a good film", "this", tokenizer=tokenizer)
    assert found.labels == ["this"] and found.text().words[1:4] == ("a", "good", "film")
    assert found.scores == pytest.approx([words(torch.tensor([[2, 5, 6, 8, 3]])).item()])


def test_token_ids_need_no_tokenizer(bert, tokenizer):
    ids = tokenizer("a good film", return_tensors="pt")["input_ids"]
    found = explain(bert, ids[0], 1, tokens=["c", "a", "g", "f", "s"])
    assert torch.equal(found.map, explain(bert, "a good film", 1, tokenizer=tokenizer).map)
    assert explain(bert, ids, 1).tokens == ["2", "5", "6", "8", "3"]


def test_numbers_and_pages_are_saved(bert, tokenizer, tmp_path: Path):
    found = explain(bert, "good", 1, tokenizer=tokenizer)
    assert torch.equal(torch.from_numpy(np.load(found.save(tmp_path / "map.npy"))), found.map)
    assert "<title>map</title>" in found.save(tmp_path / "map.html").read_text(encoding="utf-8")
    found.save(tmp_path / "map.png")


def test_a_list_of_texts_is_no_pair(bert, tokenizer):
    """A list is a batch, as everywhere in Hugging Face; here of one."""
    single = explain(bert, "a film", 1, tokenizer=tokenizer)
    assert torch.equal(explain(bert, ["a film"], 1, tokenizer=tokenizer).map, single.map)
    with pytest.raises(cv.InputError, match="tuple"):
        explain(bert, ["a film", "good"], 1, tokenizer=tokenizer)


def test_arguments_that_are_handed_in_reach_the_scores_too(bert, tokenizer):
    encoded = tokenizer("a film", "good", return_tensors="pt")
    args = (encoded["attention_mask"], encoded["token_type_ids"])
    found = explain(bert, encoded["input_ids"], 1, additional_forward_args=args)
    pair = explain(bert, ("a film", "good"), 1, tokenizer=tokenizer)
    assert torch.equal(found.map, pair.map) and found.scores == pair.scores


def test_ids_with_padding_and_no_mask_warn(bert, tokenizer):
    ids = tokenizer("a film", padding="max_length", max_length=8, return_tensors="pt")["input_ids"]
    with pytest.warns(cv.PaddingWarning, match="Rows 0"):
        explain(bert, ids, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(bert, ids, 1, additional_forward_args=((ids != 0).long(),))
        explain(bert, ids[:, :4], 1)


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, without merges: a token for each byte; words as GPT-2 cuts them."""
    letters = sorted(ByteLevel.alphabet())
    made = Tokenizer(BPE({letter: i for i, letter in enumerate(["[PAD]", *letters])}, []))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]")


def test_bytes_are_shown_as_words(bert):
    model, tokenizer = BertForSequenceClassification(BertConfig(**SMALL, vocab_size=257)).eval(), bytes_tokenizer()
    found = explain(model, "Я love 😀, café", 1, tokenizer=tokenizer, words=True)
    assert found.text().words == ("Я", "love", "😀,", "café")
    assert found.text().scores.sum().item() == pytest.approx(found.map.sum().item(), abs=1e-5)
    assert "😀" in found.text(words=False).words and found.word_ids[:2] == [0, 0]


def test_a_place_is_named_as_it_reads():
    model = BertForTokenClassification(BertConfig(**SMALL, vocab_size=257, id2label={0: "O", 1: "PER"})).eval()
    assert explain(model, "é", (1, "PER"), tokenizer=bytes_tokenizer()).labels == ["PER at 1, é"]


@pytest.mark.parametrize("kind", ["encoding", "array", "floats"])
def test_what_is_no_text_is_refused_with_advice_that_works(bert, tokenizer, kind: str):
    encoding = tokenizer("a film", return_tensors="pt")
    given = {"encoding": encoding, "array": encoding["input_ids"].numpy(), "floats": torch.rand(1, 4, 8)}[kind]
    with pytest.raises(cv.InputError, match="token ids") as refused:
        explain(bert, given, 1)
    advised = refused.value.hint.removesuffix(", the ids alone.")
    ids = eval(advised, {"tokenizer": tokenizer, "text": "a film"})
    assert explain(bert, ids, 1).map.shape == ids[0].shape


def test_an_encoding_for_a_method_is_refused_with_the_entry_to_take(bert, tokenizer):
    encoding = tokenizer("a film", return_tensors="pt")
    with pytest.raises(cv.InputError, match="entry 'input_ids'") as refused:
        cv.GenAtt(bert).attribute(encoding, 1)
    assert refused.value.got == type(encoding).__name__
    with pytest.raises(cv.InputError, match="tuple of Tensor, str"):
        cv.GenAtt(bert).attribute((encoding["input_ids"], "a"), 1)
