"""Reviews of films, meals and hotels, with the words that decide: each review is of one mind, and it is known why.

One or two sentences of a review hold an opinion; its words, a negator included, are the rationale. All other sentences
are plain. Words are shared between training and test, since a model knows no word that it never met. What is held out
are the sentences (``frames``), so that no sentence of a test review occurs in training, and of the negated opinions the
pairs of negator and word: whoever learned "not good" is tested on "hardly good".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from captum_vit.demo.reviews.frames import FELT, PLAIN, SAID
from captum_vit.demo.reviews.opinion_words import ADJECTIVES, ASPECTS, NEGATORS, NOUNS, SLOTS, VERB_NEGATORS, VERBS
from captum_vit.options import integer, one_of

SPLITS = ("train", "test")
SWAPS = (None, "rationale", "rest", "negator")
HELD_OUT = 5  # of the pairs of negator and word one in so many is kept for the test
IDLE = {"a", "an", "did"}  # words of an opinion that decide nothing

Word = tuple[str, bool]  # and whether it is of the rationale


@dataclass(frozen=True)
class Reviews:
    """A batch of reviews and what is true of them."""

    texts: list[str]
    words: list[list[str]]  # as tokenizers of the BERT kind cut them: marks of punctuation stand by themselves
    rationale: list[list[bool]]  # of each word, whether it is of an opinion
    labels: Tensor  # shape: (B,), 0 negative, 1 positive
    negated: Tensor  # shape: (B,), bool, whether its opinions are negated ones

    def __len__(self) -> int:
        return len(self.texts)


def generated_reviews(
    n: int,
    split: str = "test",
    seed: int = 0,
    *,
    negated: bool | None = None,
    swap: str | None = None,
) -> Reviews:
    """Draw reviews; the same arguments give the same reviews, and no global random state is touched.

    Args:
        n: how many.
        split: ``"train"`` or ``"test"``: which sentences, and which negated opinions, they are made of.
        seed: of the private generators.
        negated: whether the opinions are negated ("hardly a success"); None draws it for each review.
        swap: write one part anew and leave all else as it was. ``"rationale"``: a plain word in place of each opinion,
            so that none is left. ``"rest"``: other plain sentences, and other words around the opinion.
            ``"negator"``: left out, so that a negated opinion turns round. What a model then answers
            differently is what that part did, known without any method of explanation. Labels stay those of the
            review as it was.

    Example::

        >>> found = generated_reviews(4, seed=1, negated=True)
        >>> [word for word, decides in zip(found.words[0], found.rationale[0]) if decides]
        ['not', 'terrible']
    """
    integer("n", n, hint="n=20.")
    one_of("split", split, SPLITS)
    if swap is not None:
        one_of("swap", swap, [swap for swap in SWAPS if swap])
    drafts = [_Draft(f"{seed}/{split}/{i}", split, negated, swap) for i in range(n)]
    found = [draft.words() for draft in drafts]
    return Reviews(
        [re.sub(r" ([.,:])", r"\1", " ".join(word for word, _ in words)) for words in found],
        [[word for word, _ in words] for words in found],
        [[decides for _, decides in words] for words in found],
        torch.tensor([draft.label for draft in drafts]),
        torch.tensor([draft.negated for draft in drafts]),
    )


class Opinion(NamedTuple):
    """What is thought of something, in words."""

    negator: str  # "hardly", "did not", or nothing
    word: str  # as it stands behind the negator: "a success", "enjoy"
    alone: str  # and without it: "a success", "enjoyed"


@cache
def opinions(split: str, label: int, negated: bool, felt: bool) -> list[Opinion]:
    """Every opinion of a split that says ``label``.

    Args:
        split: see :func:`generated_reviews`.
        label: what it says.
        negated: whether by a negator; its word is then of the other side.
        felt: whether by a verb, or by an adjective or noun.
    """
    side = label != negated
    nouns = [f"a {noun}" for noun in NOUNS[side]]
    words = VERBS[side] if felt else [(word, word) for word in (*ADJECTIVES[side], *nouns)]
    if not negated:
        return [Opinion("", alone, alone) for _, alone in words]
    return [
        Opinion(negator, base if negator.startswith("did") else alone, alone)
        for i, negator in enumerate(VERB_NEGATORS if felt else NEGATORS)
        for j, (base, alone) in enumerate(words)
        if ((i + j) % HELD_OUT == 0) == (split == "test")
    ]


class _Draft:
    """One review. What it thinks and what else it tells come from generators of their own, so that each can be
    written anew without the other.
    """

    def __init__(self, seed: str, split: str, negated: bool | None, swap: str | None) -> None:
        self.split, self.swap = split, swap
        self.shape, self.mind = Random(f"{seed}/shape"), Random(f"{seed}/mind")
        self.rest = Random(f"{seed}/rest/{swap == 'rest'}")
        self.label, drawn = self.mind.randrange(2), self.mind.random() < 0.3
        self.negated = drawn if negated is None else negated
        self.topic = self.shape.choice(list(ASPECTS))

    def words(self) -> list[Word]:
        """The whole review."""
        holds_opinion = [False] * self.shape.randint(1, 3) + [True] * self.shape.choice((1, 1, 2))
        self.shape.shuffle(holds_opinion)
        frames = PLAIN[self.split]
        plain = iter(self.rest.sample([*frames["any"], *frames[self.topic]], holds_opinion.count(False)))
        return [word for held in holds_opinion for word in self._sentence(None if held else next(plain))]

    def _sentence(self, plain: str | None) -> list[Word]:
        """A plain sentence, or one with an opinion."""
        return _polished(self._filled(plain, []) if plain else self._opinion())

    def _opinion(self) -> Iterator[Word]:
        felt = self.mind.random() < 0.25
        frame = self.mind.choice((FELT if felt else SAID)[self.split])
        opinion = self.mind.choice(opinions(self.split, self.label, self.negated, felt))
        replacement = self.mind.choice(SLOTS["verbed" if felt else "plain"])
        said = {
            "rationale": replacement,
            "negator": opinion.alone,
        }.get(self.swap or "", f"{opinion.negator} {opinion.word}")
        return self._filled(frame, [(word, self.swap != "rationale" and word not in IDLE) for word in said.split()])

    def _filled(self, frame: str, said: Iterable[Word]) -> Iterator[Word]:
        """A frame's words."""
        for part in frame.split():
            if part == "{opinion}":
                yield from said
            else:
                slot = part.strip("{}")
                pool = ASPECTS[self.topic] if slot == "aspect" else SLOTS[slot] if slot != part else [part]
                yield from ((word, False) for word in self.rest.choice(pool).split())


def _polished(sentence: Iterable[Word]) -> list[Word]:
    """A sentence with "an" where it belongs, and a capital at its head."""
    words = list(sentence)
    for i, ((word, _), (following, _)) in enumerate(pairwise(words)):
        if word == "a" and following[0].lower() in "aeiou":
            words[i] = ("an", False)
    first, decides = words[0]
    return [(first[0].upper() + first[1:], decides), *words[1:]]
