"""Clips say the truth about themselves, and the test pitches stay unheard."""

import pytest
import torch

from captum_vit.demo import Clips, tone_clips
from captum_vit.demo.sounds.clips import RATE, REGISTERS, SAMPLES, pitches
from captum_vit.demo.sounds.model import KINDS
from captum_vit.errors import OptionError

KINDS_OF_SEED_0 = [[0, 1], [3, 4], [3, 4]]
POWERS_OF_SEED_0 = [0.0092516, 0.0040786, 0.0055599]


@pytest.fixture(scope="module")
def clips() -> Clips:
    return tone_clips(24, n_tones=(1, 4), seed=3)


@pytest.mark.slow
def test_shapes(clips: Clips) -> None:
    assert len(clips) == 24
    assert clips.waves.shape == (24, SAMPLES) and clips.tones.shape == (24, 4, SAMPLES)
    assert clips.inputs.shape == (24, 96, 64) and clips.masks.shape == (24, 4, 96, 64)
    assert clips.waves.dtype == clips.inputs.dtype == torch.float32
    assert clips.kinds.dtype == torch.int64 and clips.masks.dtype == torch.bool


def test_inputs_are_as_the_model_wants_them(clips: Clips) -> None:
    """About zero mean and unit spread."""
    assert abs(clips.inputs.mean()) < 0.3 and 0.8 < clips.inputs.std() < 1.2


def test_same_arguments_same_clips() -> None:
    state = torch.get_rng_state()
    first, again, other = tone_clips(5), tone_clips(5), tone_clips(5, seed=1)
    for name in ("waves", "kinds", "tones"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.waves, other.waves)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_clips_of_a_seed_are_those_of_the_card() -> None:
    """Other clips under the same seed would make the figures of the card untrue."""
    clips = tone_clips(3, seed=0)
    assert clips.kinds.tolist() == KINDS_OF_SEED_0
    torch.testing.assert_close(clips.waves.square().mean(1), torch.tensor(POWERS_OF_SEED_0), rtol=1e-3, atol=0)


def test_kinds_differ_and_each_tone_sounds_in_its_own_quarter(clips: Clips) -> None:
    for kinds, tones in zip(clips.kinds.tolist(), clips.tones, strict=True):
        present = [kind for kind in kinds if kind >= 0]
        assert len(present) == len(set(present)) >= 1
        assert tones.ne(0).any(1).tolist() == [kind >= 0 for kind in kinds]
        late = [tone.nonzero().min().item() >= SAMPLES // 2 - 1 for tone in tones[: len(present)]]
        assert sum(late) <= 2 and len(late) - sum(late) <= 2
    assert not (clips.masks.sum(1) > 1).any()  # no cell belongs to two tones


def test_masks_are_where_the_tones_are(clips: Clips) -> None:
    """Every mask lies in the frames in which its tone sounds, and holds most of the tone's power."""
    first, last = (
        clips.tones.ne(0).float() * weight for weight in (torch.arange(SAMPLES, 0, -1), torch.arange(SAMPLES))
    )
    for b, k in clips.kinds.ge(0).nonzero().tolist():
        frames = clips.masks[b, k].any(1).nonzero()[:, 0]
        assert len(frames) >= 8
        assert frames.min() * 160 + 400 > first[b, k].argmax() and frames.max() * 160 < last[b, k].argmax()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "net"), [("steady", 0), ("rising", 1), ("falling", -1), ("trill", None), ("pulses", 0)]
)
def test_the_pitch_goes_as_the_kind_says(kind: str, net: int | None) -> None:
    """By the middle of the mask in every frame, in bands: where it ends above its beginning, and how far it goes."""
    clips = tone_clips(60, 1, seed=2)
    masks = clips.masks[clips.kinds[:, 0] == KINDS.index(kind), 0].float()
    assert len(masks) >= 5
    for mask in masks:
        middle = (mask @ torch.arange(64.0) / mask.sum(1))[mask.any(1)]
        moved, span = middle[-4:].mean() - middle[:4].mean(), middle.max() - middle.min()
        if net is None:
            assert span > 2.5 and abs(moved) < span  # to and fro
        else:
            assert moved * net > 2.5 if net else span < 2.5


def test_a_chord_is_three_tones() -> None:
    clips = tone_clips(60, 1, seed=2)
    powers = torch.fft.rfft(clips.tones[:, 0]).abs().square()
    peaks = (powers > 0.05 * powers.max(1, keepdim=True).values).float()
    bands = torch.nn.functional.max_pool1d(peaks[:, None], 41, 1, 20)[:, 0]  # what lies within 20 Hz is one peak
    chord, steady = (clips.kinds[:, 0] == KINDS.index(kind) for kind in ("chord", "steady"))
    assert (bands.diff(dim=1) > 0).sum(1)[chord].eq(3).all() and (bands.diff(dim=1) > 0).sum(1)[steady].eq(1).all()


def test_no_pitch_is_in_both_splits() -> None:
    for train, test, (low, high) in zip(pitches("train"), pitches("test"), REGISTERS, strict=True):
        assert set(train.tolist()) | set(test.tolist()) == set(range(low, high + 1))
        assert not set(train.tolist()) & set(test.tolist()) and len(test) >= 3


@pytest.mark.parametrize("split", ["train", "test"])
def test_steady_tones_have_the_pitches_of_their_split(split: str) -> None:
    clips = tone_clips(60, 1, split, seed=5)
    steady = clips.tones[clips.kinds[:, 0] == KINDS.index("steady"), 0]
    hertz = torch.fft.rfft(steady).abs().argmax(1) * RATE / SAMPLES
    semitones = 12 * (hertz / 440).log2()
    near = (semitones[:, None] - torch.cat(pitches(split))).abs().min(1).values
    assert len(steady) >= 5 and near.max() < 0.4


def test_a_tone_left_out_is_all_that_changes() -> None:
    whole, other = tone_clips(8, 2, seed=4), tone_clips(8, 2, seed=4, without=1)
    assert torch.equal(other.kinds[:, 0], whole.kinds[:, 0]) and (other.kinds[:, 1] == -1).all()
    assert torch.equal(other.tones[:, 0], whole.tones[:, 0]) and not other.tones[:, 1].any()
    torch.testing.assert_close(whole.waves - whole.tones[:, 1], other.waves, atol=1e-6, rtol=0)
    assert not other.masks[:, 1].any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_tones": 5}, "n_tones"),
        ({"n_tones": 0}, "n_tones"),
        ({"split": "dog"}, "split"),
        ({"without": 2}, "without"),
        ({"n_clips": -1}, "n_clips"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        tone_clips(**{"n_clips": 1} | options)
