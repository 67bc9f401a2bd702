"""Questions about digit scenes: the pixels that decide the answer are known.

A scene holds a low digit, zero to four, and a high one, five to nine. ``What digit is low?`` is answered by the first,
``What digit is high?`` by the second, in a word. Questions, scenes and the split were fixed before the first training.

The split is by handwriting, as that of all scenes. The two digits of a scene are drawn independently, so that the one
is no evidence for or against the other, and only its own strokes decide an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from captum_vit.demo.digits.model import NAMES
from captum_vit.demo.digits.scenes import MEAN, STD, digit_scenes
from captum_vit.options import integer, one_of

SIDES = ("low", "high")
HALF = 5  # digits below it are low
SWAPS = ("digit", "other", "question")


@dataclass(frozen=True)
class DigitQuestions:
    """A batch of scenes with a question about each, and what is true of them."""

    pixels: Tensor  # shape: (B, 3, 64, 64), in [0, 1]
    prompts: list[str]  # as the processor reads them, with a mark where the image goes
    answers: list[str]  # the word that goes on with each prompt
    digits: Tensor  # shape: (B, 2), the digit that is asked for and the other one
    masks: Tensor  # shape: (B, 2, 64, 64), bool, their strokes

    @property
    def images(self) -> Tensor:
        """The pixels normalised for the model, (B, 3, 64, 64) in [-1, 1]."""
        return (self.pixels - MEAN) / STD

    def __len__(self) -> int:
        return len(self.pixels)


def question(side: str) -> str:
    """The prompt that asks for the low or the high digit of an image."""
    return f"<image> What digit is {side}?"


def digit_questions(
    n: int,
    split: str = "test",
    seed: int = 0,
    *,
    swap: str | None = None,
    without: int | None = None,
) -> DigitQuestions:
    """Draw scenes and questions; the same arguments give the same ones, and no global random state is touched.

    Args:
        n: how many.
        split: ``"train"`` or ``"test"``: which scans the digits are taken from.
        seed: of the private generators.
        swap: write one part anew and leave all else as it was. ``"digit"``: another low digit in place of the low one
            that is asked for, or another high one; the answer is then that digit. ``"other"``: the same of the digit
            that is not asked for; the answer stays. ``"question"``: asks for the other digit.
        without: leave the digit that is asked for unwritten (0), or the other one (1).

    Raises:
        OptionError: a split or a swap that there is not, or another ``without``.

    Example::

        >>> found = digit_questions(1, seed=3)
        >>> found.prompts, found.answers, found.digits
        (['<image> What digit is high?'], ['eight'], tensor([[8, 1]]))
    """
    integer("n", n, hint="n=20.")
    integer("seed", seed, least=None, hint="seed=0.")
    if swap is not None:
        one_of("swap", swap, SWAPS)
    generator = Generator().manual_seed(seed)
    both = torch.randint(HALF, (n, 2), generator=generator) + torch.tensor([0, HALF])  # low, high
    asked = torch.randint(2, (n,), generator=generator)
    digits = torch.where(asked[:, None] == 1, both.flip(1), both)
    by = torch.randint(1, HALF, (n,), generator=generator)
    if swap in ("digit", "other"):
        place = int(swap == "other")
        digits[:, place] = digits[:, place] // HALF * HALF + (digits[:, place] + by) % HALF
    scenes = digit_scenes(n, 2, split, seed, without=without, digits=digits)
    masks = scenes.masks
    if swap == "question":
        asked, digits, masks = 1 - asked, digits.flip(1), masks.flip(1)
    return DigitQuestions(
        scenes.pixels,
        [question(SIDES[side]) for side in asked.tolist()],
        [NAMES[digit] for digit in digits[:, 0].tolist()],
        digits,
        masks,
    )
