"""Captions of digit scenes: what is written, in which words, and of which scenes it is true."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from torch import Tensor

from captum_vit.demo.digits.model import NAMES

TEMPLATES = (
    "a photo of {}.",
    "a picture of {}.",
    "a drawing of {}.",
    "a scene with {}.",
    "handwritten digits: {}.",
    "there is {} here.",
    "{}.",
)


PROMPTS = tuple(f"{'an' if name == 'eight' else 'a'} {name}" for name in NAMES)  # by class: "a zero", "a one", ...
BARE = 0.25  # share of captions that leave the articles out


def named(digits: Iterable[int], names: Sequence[str] = PROMPTS) -> str:
    """Digits in words: ``a three and an eight``, ``a one, a two and a nine``."""
    *others, last = (names[digit] for digit in digits)
    return f"{', '.join(others)} and {last}" if others else last


def caption(digits: Sequence[int], chance: random.Random) -> str:
    """A sentence that names these digits, in any order, in one of the templates."""
    order = chance.sample(list(digits), len(digits))
    return chance.choice(TEMPLATES).format(named(order, NAMES if chance.random() < BARE else PROMPTS))


def some_of(digits: Tensor, chance: random.Random) -> list[list[int]]:
    """For each scene (B, K), padded with -1, one to all of its digits: what a caption of it may name."""
    present = [[digit for digit in row if digit >= 0] for row in digits.tolist()]
    return [chance.sample(row, chance.randint(1, len(row))) for row in present]


def is_true_of(said: Sequence[Sequence[int]], digits: Tensor) -> Tensor:  # shape: (B, N), bool
    """Which of N captions are true of which of B scenes (B, K): the scene shows all that is said."""
    present = [set(row) for row in digits.tolist()]
    return Tensor([[row.issuperset(one) for one in said] for row in present]).bool()
