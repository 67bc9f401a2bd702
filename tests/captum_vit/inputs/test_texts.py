"""Texts and pairs of texts reach a model with their tokens, one-to-one."""

import pytest
import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

import captum_vit as cv
from captum_vit.errors import InputError, UnsupportedModelError
from captum_vit.inputs.texts import read_text
from captum_vit.models.library import is_text_model
from captum_vit.models.positions import most_tokens
from tests.captum_vit.models.families import _siglip
from tests.models import SIZES, VOCABULARY, clip_model, open_clip_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "##ness", "film"]


@pytest.fixture
def tokenizer() -> BertTokenizerFast:
    return BertTokenizerFast(vocab={word: index for index, word in enumerate(WORDS)}, model_max_length=8)


def bert() -> BertForSequenceClassification:
    return BertForSequenceClassification(BertConfig(**SIZES, vocab_size=len(WORDS))).eval()


def test_a_text_is_read_with_its_tokens(tokenizer):
    found = read_text(bert(), "A goodness film", tokenizer)
    assert found.tokens == ["[CLS]", "a", "good", "##ness", "film", "[SEP]"]
    assert found.ids.tolist() == [[2, 5, 6, 7, 8, 3]]
    assert (found.args, found.segments) == ((), None)
    assert is_text_model(bert())


def test_a_pair_brings_what_tells_the_two_apart(tokenizer):
    found = read_text(bert(), ("a film", "good"), tokenizer)
    assert found.tokens == ["[CLS]", "a", "film", "[SEP]", "good", "[SEP]"]
    assert found.segments == [0, 0, 0, 0, 1, 1]
    mask, kinds = found.args
    assert mask.tolist() == [[1] * 6] and kinds.tolist() == [found.segments]
    with torch.no_grad():
        model = bert()
        wanted = model(**tokenizer("a film", "good", return_tensors="pt")).logits
        assert torch.equal(model(found.ids, *found.args).logits, wanted)


@pytest.mark.parametrize(("family", "places"), [("DistilBert", None), ("Electra", 2), ("Roberta", 2), ("Camembert", 2)])
def test_arguments_stand_where_the_models_forward_has_them(tokenizer, family: str, places: int | None):
    sizes = SIZES | VOCABULARY | {"dim": 24, "n_heads": 3, "n_layers": 1, "hidden_dim": 8}
    config = getattr(transformers, f"{family}Config")(**sizes)
    if places:
        config.type_vocab_size = 2
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    found = read_text(cv.logits_of(model), ("a film", "good"), tokenizer)
    assert len(found.args) == (places or 0)
    with torch.no_grad():
        encoded = tokenizer("a film", "good", return_tensors="pt")
        if not places:
            del encoded["token_type_ids"]
        assert torch.allclose(model(found.ids, *found.args).logits, model(**encoded).logits)


def test_a_tokenizer_in_pure_python_tells_by_its_token_types(tokenizer):
    class Plain:
        model_max_length = 8
        convert_ids_to_tokens = tokenizer.convert_ids_to_tokens

        def __call__(self, *texts, **options):
            return transformers.BatchEncoding(dict(tokenizer(*texts, **options)))

    assert read_text(bert(), ("a film", "good"), Plain()).segments == [0, 0, 0, 0, 1, 1]


def test_a_stored_tokenizer_is_found(tokenizer, tmp_path):
    bert().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = read_text(BertForSequenceClassification.from_pretrained(tmp_path), "good")
    assert found.tokens == ["[CLS]", "good", "[SEP]"]


def test_an_image_text_model_reads_texts_where_its_text_side_is_explained(tokenizer):
    for model, length in ((clip_model(), 5), (_siglip(), 24)):
        words = cv.ImageSimilarity(model, torch.randn(1, 24 if length == 24 else 16))
        assert is_text_model(words) and not is_text_model(cv.TextSimilarity(model, words.image_embeddings))
        tokenizer.model_max_length = 24
        found = read_text(words, "a good film", tokenizer)
        assert found.ids.shape == (1, length) and len(found.tokens) == length and found.args == ()
        with pytest.raises(InputError, match="pair"):
            read_text(words, ("a", "good"), tokenizer)


def test_open_clips_tokens_have_names():
    class Tokenizer:
        def __init__(self) -> None:
            self.decoder = {48: "<start_of_text>", 3: "dog</w>", 49: "<end_of_text>"}

        def __call__(self, texts):
            return torch.tensor([[48, 3, 49] + [0] * 6] * len(texts))

    words = cv.ImageSimilarity(open_clip_model(), torch.randn(1, 16))
    assert read_text(words, "dog", Tokenizer()).tokens == [
        "<start_of_text>", "dog</w>", "<end_of_text>", *["[PAD]"] * 6
    ]  # fmt: skip
    found = cv.explain(words, "dog", 0, tokenizer=Tokenizer())
    assert found.text().words == ("<start_of_text>", "dog", "<end_of_text>")


@pytest.mark.parametrize("text", ["  ", "a " * 9, ("a", " "), ("a", "good", "film"), (), ("a", 1)])
def test_texts_that_cannot_be_read_are_refused(tokenizer, text):
    with pytest.raises(InputError):
        read_text(bert(), text, tokenizer)


def test_a_model_without_a_tokenizer_is_refused():
    with pytest.raises(UnsupportedModelError, match="tokenizer"):
        read_text(bert(), "good")


def test_a_list_is_a_batch_and_a_tuple_is_a_pair(tokenizer):
    one, pair = read_text(bert(), ["a film"], tokenizer), read_text(bert(), ("a film", "good"), tokenizer)
    assert one.segments is None and one.tokens == read_text(bert(), "a film", tokenizer).tokens
    assert pair.segments == [0, 0, 0, 0, 1, 1]
    for several in (["a film", "good"], ["a"] * 3, []):
        with pytest.raises(InputError, match="as a tuple for a pair"):
            read_text(bert(), several, tokenizer)


def test_words_are_told_by_the_tokenizer(tokenizer):
    assert read_text(bert(), "a goodness film", tokenizer).word_ids == [None, 0, 1, 1, 2, None]
    assert read_text(bert(), ("a", "good"), tokenizer).word_ids == [None, 0, None, 0, None]


SHORT = {"max_position_embeddings": 8, "vocab_size": len(WORDS)}


@pytest.mark.parametrize(("family", "most", "changes"), [
    ("Bert", 8, {}), ("Roberta", 8 - 1 - 1, {"pad_token_id": 1}), ("Electra", 8, {}),
    ("DistilBert", 8, {"dim": 24, "n_heads": 3, "n_layers": 1, "hidden_dim": 8}),
])  # fmt: skip
def test_a_text_longer_than_the_positions_is_refused_by_name(tokenizer, family: str, most: int, changes: dict):
    config = getattr(transformers, f"{family}Config")(**SIZES | SHORT | changes)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    tokenizer.model_max_length = 10**30
    assert most_tokens(model) == most
    text, wanted = "a " * (most - 1), f"at most {most} tokens"
    long = tokenizer(text, return_tensors="pt")["input_ids"]
    cv.explain(model, "a " * (most - 2), 0, tokenizer=tokenizer)
    for refused in (
        lambda: cv.explain(model, text, 0, tokenizer=tokenizer),
        lambda: cv.explain(model, long, 0),
        lambda: cv.GenAtt(model).attribute(long, 0),
        lambda: cv.RawAttention(cv.logits_of(model)).attribute(long, 0),
    ):
        with pytest.raises(InputError, match=wanted) as refusal:
            refused()
        call = f'tokenizer(text, truncation=True, max_length={most}, return_tensors="pt")["input_ids"]'
        assert call in refusal.value.hint and f"{most + 1} tokens" in refusal.value.got
    begun = tokenizer(text, truncation=True, max_length=most, return_tensors="pt")["input_ids"]
    assert cv.explain(model, begun, 0).map.shape == (most,)


def test_positions_that_limit_nothing():
    assert most_tokens(torch.nn.Linear(2, 2)) is None
    assert most_tokens(transformers.BartModel(transformers.BartConfig(
        d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1, decoder_attention_heads=1,
        encoder_ffn_dim=8, decoder_ffn_dim=8, vocab_size=9, max_position_embeddings=8,
    ))) == 8  # fmt: skip
