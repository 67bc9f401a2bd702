"""Digit scenes say the truth about themselves, and the test digits stay unseen."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from captum_vit.demo import Scenes, digit_scenes
from captum_vit.demo.digits.scenes import _glyphs, choose_scans, digit_split
from captum_vit.errors import OptionError


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return digit_scenes(200, n_digits=(1, 4), seed=3)


def test_shapes_and_ranges(scenes: Scenes) -> None:
    assert len(scenes) == 200
    assert scenes.pixels.shape == scenes.images.shape == (200, 3, 64, 64)
    assert scenes.digits.shape == (200, 4) and scenes.masks.shape == (200, 4, 64, 64)
    assert scenes.pixels.dtype == torch.float32 and scenes.masks.dtype == torch.bool
    assert scenes.digits.dtype == scenes.label.dtype == torch.int64
    assert scenes.pixels.min() >= 0 and scenes.pixels.max() <= 1
    torch.testing.assert_close(scenes.images / 2 + 0.5, scenes.pixels)


def test_the_split_is_fixed_whole_and_stratified() -> None:
    train, test = digit_split()["train"], digit_split()["test"]
    assert (len(train), len(test)) == (1297, 500)
    assert set(train.tolist()) | set(test.tolist()) == set(range(1797))
    shares = torch.from_numpy(load_digits().target)[test].bincount() / 500
    assert shares.min() > 0.09 and shares.max() < 0.11


@pytest.mark.parametrize(("split", "other"), [("train", "test"), ("test", "train")])
def test_no_scene_shows_a_scan_of_the_other_split(split: str, other: str) -> None:
    """Blank the scans of one split: scenes of the other do not change by a pixel."""
    before = digit_scenes(64, (1, 3), split).pixels
    glyphs, kept = _glyphs(), _glyphs().clone()
    try:
        glyphs[digit_split()[other]] = 0
        assert torch.equal(digit_scenes(64, (1, 3), split).pixels, before)
        glyphs[digit_split()[split]] = 0
        assert not torch.equal(digit_scenes(64, (1, 3), split).pixels, before)
    finally:
        glyphs.copy_(kept)


def test_chosen_scans_show_the_class_and_all_take_part() -> None:
    classes = torch.arange(10).repeat(3000)
    for split in ("train", "test"):
        scans = choose_scans(classes, split, torch.Generator().manual_seed(0))
        assert torch.equal(torch.from_numpy(load_digits().target)[scans], classes)
        assert torch.equal(scans.unique(), digit_split()[split])


def test_same_arguments_same_scenes() -> None:
    state = torch.get_rng_state()
    first, again, other = digit_scenes(20), digit_scenes(20), digit_scenes(20, seed=1)
    for name in ("pixels", "digits", "masks", "label"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.pixels, other.pixels)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_digit_left_out_is_all_that_changes() -> None:
    whole, other = digit_scenes(50, 2, seed=4), digit_scenes(50, 2, seed=4, without=1)
    assert torch.equal(other.digits[:, 0], whole.digits[:, 0]) and (other.digits[:, 1] == -1).all()
    assert torch.equal(other.masks[:, 0], whole.masks[:, 0]) and not other.masks[:, 1].any()
    changed = (whole.pixels != other.pixels).any(1)
    near = torch.nn.functional.max_pool2d(whole.masks[:, 1].float(), 5, 1, 2) > 0
    assert changed.any() and not (changed & ~near).any()
    with pytest.raises(ValueError, match="without"):
        digit_scenes(1, 2, without=2)


def test_digits_differ_and_the_label_is_one_of_them(scenes: Scenes) -> None:
    for digits, label in zip(scenes.digits.tolist(), scenes.label.tolist(), strict=True):
        present = [digit for digit in digits if digit >= 0]
        assert len(present) == len(set(present)) >= 1
        assert label in present
        assert digits[: len(present)] == present  # the padding stands at the end


def test_the_number_of_digits_is_what_was_asked(scenes: Scenes) -> None:
    assert (digit_scenes(50, 2).digits >= 0).all()
    assert set((scenes.digits >= 0).sum(1).tolist()) == {1, 2, 3, 4}


def test_every_digit_has_a_mask_of_its_own(scenes: Scenes) -> None:
    assert scenes.masks.sum(1).max() == 1  # no pixel belongs to two digits
    area = scenes.masks.sum((2, 3))
    assert torch.equal(area > 0, scenes.digits >= 0)
    assert area[scenes.digits >= 0].min() > 25


def test_masks_lie_on_the_digits(scenes: Scenes) -> None:
    """Inside a mask the colour is far from that of the scene around it, in nearly every pixel."""
    anywhere = scenes.masks.any(1)
    for pixels, strokes in zip(scenes.pixels, anywhere, strict=True):
        around = pixels[:, ~strokes].mean(1)
        inside = (pixels[:, strokes] - around[:, None]).norm(dim=0)
        outside = (pixels[:, ~strokes] - around[:, None]).norm(dim=0)
        assert inside.median() > 2 * outside.median()


@pytest.mark.parametrize("n_digits", [0, 5, (2, 1), (0, 2)])
def test_impossible_numbers_are_refused(n_digits: object) -> None:
    with pytest.raises(ValueError, match="n_digits"):
        digit_scenes(1, n_digits)  # type: ignore[arg-type]


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="'train', 'test'"):
        digit_scenes(1, split="val")


def test_given_digits_are_written_where_random_ones_would_be() -> None:
    """Across two portions; what is not the changed digit stays bit by bit."""
    random = digit_scenes(300, 2, seed=5)
    same = digit_scenes(300, 2, seed=5, digits=random.digits)
    assert torch.equal(same.pixels, random.pixels) and torch.equal(same.label, random.label)
    digits = torch.stack([random.digits[:, 0], (random.digits[:, 1] + 1) % 10], 1)
    other = digit_scenes(300, 2, seed=5, digits=digits)
    assert torch.equal(other.digits, digits) and torch.equal(other.masks[:, 0], random.masks[:, 0])
    changed = (other.pixels != random.pixels).any(1)
    near = F.max_pool2d((other.masks[:, 1] | random.masks[:, 1]).float(), 5, 1, 2) > 0
    assert (changed & ~near).sum() == 0 < changed.sum()


@pytest.mark.parametrize("digits", [torch.tensor([[1, 10]]), torch.tensor([[1, -1]]), torch.tensor([[1]])])
def test_digits_that_cannot_be_written_are_refused(digits: torch.Tensor) -> None:
    with pytest.raises(OptionError, match="`digits` from 0 to 9, of the shape"):
        digit_scenes(1, 2, digits=digits)
