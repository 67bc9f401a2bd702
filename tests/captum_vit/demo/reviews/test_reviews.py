"""Reviews say the truth about themselves, and no test item occurs in training."""

import random
from itertools import product

import pytest
import torch

from captum_vit.demo import Reviews, demo_bert_tokenizer, generated_reviews
from captum_vit.demo.reviews.frames import FELT, PLAIN, SAID
from captum_vit.demo.reviews.opinion_words import ADJECTIVES, NOUNS, SLOTS, VERBS
from captum_vit.demo.reviews.reviews import IDLE, SPLITS, opinions

SIDES = {
    word.split()[-1]: side
    for side in (0, 1)
    for word in [*ADJECTIVES[side], *NOUNS[side], *(form for pair in VERBS[side] for form in pair)]
}


@pytest.fixture(scope="module")
def found() -> Reviews:
    return generated_reviews(400, seed=3)


def sentences(reviews: Reviews) -> set[str]:
    return {sentence for text in reviews.texts for sentence in text.replace(":", ".").rstrip(".").split(". ")}


def test_shapes(found: Reviews) -> None:
    assert len(found) == len(found.texts) == len(found.words) == len(found.rationale) == 400
    assert [len(words) for words in found.words] == [len(decides) for decides in found.rationale]
    assert found.labels.shape == found.negated.shape == (400,) and found.negated.dtype == torch.bool
    assert 0.4 < found.labels.float().mean() < 0.6 and 0.2 < found.negated.float().mean() < 0.4
    assert all(text.replace(" ", "") == "".join(words) for text, words in zip(found.texts, found.words, strict=True))


def test_the_rationale_says_what_the_label_says(found: Reviews) -> None:
    """Of the words that take sides, all are of the rationale; behind a negator they speak for the other label."""
    rows = zip(found.words, found.rationale, found.labels.tolist(), found.negated.tolist(), strict=True)
    for words, decides, label, negated in rows:
        sided = [SIDES[word.lower()] for word in words if word.lower() in SIDES]
        chosen = [word.lower() for word, one in zip(words, decides, strict=True) if one]
        assert 1 <= len(sided) <= 2 and set(sided) == {label != negated}
        assert len([word for word in chosen if word in SIDES]) == len(sided)
        assert (len(chosen) > len(sided)) == negated
        assert not IDLE & set(chosen)


def test_both_kinds_can_be_asked_for() -> None:
    for negated in (False, True):
        assert (generated_reviews(30, negated=negated).negated == negated).all()


def test_same_arguments_same_reviews() -> None:
    states = torch.get_rng_state(), random.getstate()
    first, again, other = generated_reviews(20), generated_reviews(20), generated_reviews(20, seed=1)
    assert first.texts == again.texts and first.rationale == again.rationale
    assert torch.equal(first.labels, again.labels)
    assert first.texts != other.texts
    assert generated_reviews(5).texts == first.texts[:5]
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


def test_no_sentence_with_slots_is_in_both_splits() -> None:
    train, test = (
        {*SAID[split], *FELT[split], *(frame for of_topic in PLAIN[split].values() for frame in of_topic)}
        for split in SPLITS
    )
    assert not train & test


@pytest.mark.slow
def test_no_test_sentence_is_in_training() -> None:
    assert not sentences(generated_reviews(3000)) & sentences(generated_reviews(12_000, "train"))


def test_negated_pairs_of_the_test_are_held_out_and_none_is_lost() -> None:
    for label, felt in product((0, 1), (False, True)):
        train, test = ({(o.negator, o.alone) for o in opinions(split, label, True, felt)} for split in SPLITS)
        assert train and test and not train & test
        words = {alone for _, alone in train | test}
        assert words == {o.alone for o in opinions("train", 1 - label, False, felt)}
        assert len(train | test) == len(words) * len({negator for negator, _ in train | test})


@pytest.mark.slow
def test_every_piece_of_a_test_review_is_met_in_training_and_none_is_unknown() -> None:
    tokenizer = demo_bert_tokenizer()
    train, test = (
        {piece for text in set(generated_reviews(n, split).texts) for piece in tokenizer.tokenize(text)}
        for n, split in ((12_000, "train"), (3000, "test"))
    )
    assert not test - train
    assert train | set(tokenizer.all_special_tokens) == set(tokenizer.get_vocab())


def test_negators_and_pieces_settle_nothing_by_themselves() -> None:
    """Negators stand in plain sentences, and pieces of deciding words in words of the other side or of none."""
    plain = {word for of_topic in PLAIN["train"].values() for frame in of_topic for word in frame.split()}
    assert {"not", "hardly", "never", "no", "longer", "far", "from", "anything", "but", "less", "than"} <= plain
    pieces = {word: set(demo_bert_tokenizer().tokenize(word)) for word in SIDES}
    for first, second in (("charming", "charmless"), ("forgettable", "unforgettable"), ("tasteful", "tasteless")):
        assert SIDES[first] != SIDES[second] and pieces[first] & pieces[second]


@pytest.mark.parametrize("split", SPLITS)
def test_a_swap_leaves_all_else_as_it_was(split: str) -> None:
    whole = generated_reviews(60, split, seed=2)
    for swap in ("rationale", "rest", "negator"):
        other = generated_reviews(60, split, seed=2, swap=swap)
        assert torch.equal(other.labels, whole.labels) and torch.equal(other.negated, whole.negated)
        assert other.texts != whole.texts

    def said(reviews: Reviews, decides: bool) -> list[list[str]]:
        rows = zip(reviews.words, reviews.rationale, strict=True)
        return [[w.lower() for w, d in zip(words, row, strict=True) if d == decides] for words, row in rows]

    without = generated_reviews(60, split, seed=2, swap="rationale")
    assert not any(map(any, without.rationale))
    assert not {word.lower() for words in without.words for word in words} & SIDES.keys()
    around = generated_reviews(60, split, seed=2, swap="rest")
    assert said(around, True) == said(whole, True) and said(around, False) != said(whole, False)
    bare = generated_reviews(60, split, seed=2, swap="negator")
    for words, before, negated in zip(said(bare, True), said(whole, True), whole.negated.tolist(), strict=True):
        assert len(words) < len(before) if negated else words == before
    plain = [[word for word in words if word not in IDLE] for words in said(bare, False)]
    assert plain == [[word for word in words if word not in IDLE] for words in said(whole, False)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"n": 0}, "`n`"), ({"n": 1, "split": "val"}, "'train'"), ({"n": 1, "swap": "all"}, "swap")],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        generated_reviews(**arguments)


def test_slots_take_no_side() -> None:
    assert not {word.lower() for words in SLOTS.values() for word in words} & SIDES.keys()
