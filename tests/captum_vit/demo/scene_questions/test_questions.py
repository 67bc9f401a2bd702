"""Questions about scenes: what is asked, and what is true of it."""

import pytest
import torch

from captum_vit.demo import digit_questions
from captum_vit.demo.digits.model import NAMES
from captum_vit.errors import OptionError


def test_the_question_is_for_the_first_digit() -> None:
    found = digit_questions(40, seed=1)
    assert len(found) == 40 and found.masks.shape == (40, 2, 64, 64) and found.images.min() >= -1
    for prompt, answer, (asked, other) in zip(found.prompts, found.answers, found.digits.tolist(), strict=True):
        assert prompt == f"<image> What digit is {'low' if asked < 5 else 'high'}?"
        assert answer == NAMES[asked] and (asked < 5) != (other < 5)
    assert 10 < sum("low" in prompt for prompt in found.prompts) < 30
    assert torch.equal(found.pixels, digit_questions(40, seed=1).pixels)


@pytest.mark.parametrize(("swap", "place"), [("digit", 0), ("other", 1)])
def test_a_swap_writes_one_digit_anew(swap: str, place: int) -> None:
    """Another one of its side, where it was."""
    whole, other = digit_questions(30, seed=2), digit_questions(30, seed=2, swap=swap)
    assert (whole.digits[:, place] != other.digits[:, place]).all()
    assert torch.equal(whole.digits // 5, other.digits // 5) and whole.prompts == other.prompts
    assert torch.equal(whole.digits[:, 1 - place], other.digits[:, 1 - place])
    assert torch.equal(whole.masks[:, 1 - place], other.masks[:, 1 - place])


def test_a_swapped_question_is_for_the_other_digit() -> None:
    whole, other = digit_questions(10, seed=2), digit_questions(10, seed=2, swap="question")
    assert torch.equal(whole.pixels, other.pixels) and torch.equal(whole.digits.flip(1), other.digits)
    assert torch.equal(whole.masks.flip(1), other.masks)
    assert all(("low" in a) != ("low" in b) for a, b in zip(whole.prompts, other.prompts, strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"n": 0}, "`n`"), ({"swap": "all"}, "`swap` must be"), ({"split": "all"}, "`split` must be")],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        digit_questions(**{"n": 2} | options)
