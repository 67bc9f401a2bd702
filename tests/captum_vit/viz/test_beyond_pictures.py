"""Films, spectrograms, waves, slices and marks: what is shown is what the map has, at its place, on one scale."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_vit.errors import CaptumVitError
from captum_vit.viz import Mark, film, overlay, panels, slices, spectrogram, wave
from captum_vit.viz.film import strongest_of
from captum_vit.viz.volumes import strongest_voxel

GREY = torch.full((3, 32, 32), 0.5)
FRAMES = torch.full((16, 3, 32, 32), 0.5)


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def pixels(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def warmth(axes: Axes) -> np.ndarray:
    return pixels(axes)[..., 0] - pixels(axes)[..., 2]


def moments(n: int = 8, at: int = 3) -> Tensor:
    relevance = torch.zeros(n, 4, 4)
    relevance[at, 1, 2], relevance[at + 1, 1, 2] = 1.0, 0.5
    return relevance


def test_a_film_shows_every_moment_on_one_scale() -> None:
    figure = film(FRAMES, moments(), per_second=8, title="$5 <b>", colour_bar=True)
    figure.canvas.draw()
    assert titles(figure)[:3] == ["0.125 s", "0.375 s", "0.625 s"] and figure.get_suptitle() == "$5 <b>"
    over = [axes for axes in figure.axes if axes.images][1:16:2]
    warm = [warmth(axes).max() for axes in over]
    assert warm[3] > warm[4] > 0.1 and max(warm[:3] + warm[5:]) < 0.2  # half the evidence has half the colour
    bars = next(axes for axes in figure.axes if axes.patches and axes.get_xlabel() == "time (s)")
    assert bars.get_xlim() == (0, 2)
    heights = [patch.get_height() for patch in bars.patches[:8]]
    assert heights == pytest.approx([0, 0, 0, 1, 0.5, 0, 0, 0])
    assert [patch.get_x() + patch.get_width() / 2 for patch in bars.patches[:2]] == pytest.approx([0.125, 0.375])


def test_evidence_for_and_against_have_bars_of_their_own() -> None:
    figure = film(FRAMES, torch.stack([torch.tensor([[2.0, -1.0], [0.0, -1.0]])] * 4))
    bars = next(axes for axes in figure.axes if axes.get_xlabel() == "frame")
    assert [patch.get_height() for patch in bars.patches] == [2] * 4 + [-2] * 4


def test_a_long_film_shows_the_strongest_moment_of_each_stretch() -> None:
    relevance = torch.rand(32, 2, 2) * 0.1
    relevance[[5, 19]] += 1
    strength = relevance.flatten(1).sum(1)
    assert strongest_of(strength, 4)[0] == 5 and strongest_of(strength, 4)[2] == 19
    assert strongest_of(strength[:4], 8) == [0, 1, 2, 3]
    figure = film(FRAMES.repeat(2, 1, 1, 1), relevance, most=4)
    assert {"frame 5", "frame 19"} < set(titles(figure)) and len(titles(figure)) == 4


def test_a_spectrogram_has_time_to_the_right_and_frequency_upward() -> None:
    relevance = torch.zeros(10, 4)
    relevance[8, 3] = 1.0  # late and high
    figure = spectrogram(torch.rand(100, 32), relevance, seconds=5.0, title="late", colour_bar=True)
    upper, lower = figure.axes[:2]
    assert upper.get_title() == "late" and lower.get_xlabel() == "time (s)" and lower.get_ylabel() == "mel band"
    image = lower.images[0]
    assert image.origin == "lower" and image.get_extent() == [0, 5, 0, 32] and pixels(lower).shape[:2] == (32, 100)
    row, column = np.unravel_index(warmth(lower).argmax(), (32, 100))
    assert row >= 24 and 75 < column < 95
    assert np.ptp(pixels(upper), axis=-1).max() == 0  # the sound itself is grey


def test_a_wave_is_coloured_where_its_evidence_lies() -> None:
    relevance = torch.tensor([0.0, 0.0, 1.0, 0.0, -1.0])
    figure = wave(torch.sin(torch.arange(1000.0)), relevance, seconds=1.0, title="sine")
    axes = figure.axes[0]
    colours = axes.collections[0].get_colors()
    warm = colours[:, 0] - colours[:, 2]
    assert (warm[410:590] > 0.3).all() and (warm[810:] < -0.3).all() and np.abs(warm[:390]).max() < 0.05
    assert axes.get_xlim() == (0, 1) and axes.get_xlabel() == "time (s)"


def test_slices_cross_in_the_strongest_voxel() -> None:
    relevance = torch.zeros(4, 6, 6)
    relevance[3, 1, 4] = -2.0
    relevance[0, 0, 0] = 1.0
    at = strongest_voxel(relevance, (8, 24, 12))
    assert at == [7, 6, 9]
    figure = slices(torch.randn(1, 1, 8, 24, 12) * 300 - 500, relevance, title="cold", most=4, colour_bar=True)
    assert titles(figure)[:4] == ["input", "z = 7 of 8", "y = 6 of 24", "x = 9 of 12"]
    assert "z = 7" in titles(figure)[4:] and len(titles(figure)) == 8
    across = warmth(figure.axes[1])
    row, column = np.unravel_index(across.argmin(), across.shape)
    assert row / across.shape[0] == pytest.approx(6 / 24, abs=0.1)
    assert column / across.shape[1] == pytest.approx(9 / 12, abs=0.12)


def white(axes: Axes, figure: Figure) -> np.ndarray:
    """Where a picture of grey 0.5 has white drawn on it, in fractions of its height and width."""
    figure.canvas.draw()
    shown, box = np.asarray(figure.canvas.buffer_rgba())[..., :3], axes.get_window_extent()
    inside = shown[::-1][round(box.y0) + 1 : round(box.y1) - 1, round(box.x0) + 1 : round(box.x1) - 1][::-1]
    rows, columns = np.nonzero((inside > 225).all(-1))
    return np.stack([rows / inside.shape[0], columns / inside.shape[1]])


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 20, 40)])
def test_a_pixel_a_box_and_a_region_are_marked_at_their_place(shape: tuple[int, int, int]) -> None:
    picture, flat = torch.full(shape, 0.5), torch.zeros(4, 4)
    figure = overlay(picture, flat, mark=Mark.at_pixel((12, 3), (16, 16)))
    y, x = white(figure.axes[0], figure).mean(1)
    assert (y, x) == pytest.approx((12.5 / 16, 3.5 / 16), abs=0.03)
    figure = overlay(picture, flat, mark=Mark.of_box(torch.tensor([0.5, 0.4, 0.2, 0.6])))
    edges = white(figure.axes[0], figure)
    assert [*edges.min(1), *edges.max(1)] == pytest.approx([0.1, 0.4, 0.7, 0.6], abs=0.03)
    mask = torch.zeros(8, 8)
    mask[2:6, 1:7] = 1
    figure = overlay(picture, flat, mark=Mark.of_region(mask))
    edges = white(figure.axes[0], figure)
    assert [*edges.min(1), *edges.max(1)] == pytest.approx([2 / 8, 1 / 8, 6 / 8, 7 / 8], abs=0.03)
    middle = (np.abs(edges - [[0.5], [0.5]]) < 0.1).all(0)
    assert not middle.any()


def test_marks_are_in_the_input_and_in_every_map() -> None:
    masks, mark = torch.ones(2, 32, 32), Mark.at_pixel((1, 2), (4, 4))
    figure = panels(GREY, {"a": torch.rand(2, 4, 4), "b": torch.rand(2, 4, 4)}, masks=masks, mark=mark)
    marked = [bool(axes.lines) for axes in figure.axes]
    assert marked == [True, False, True, True] * 2


WRONG: dict[str, Callable[[], object]] = {
    "frames that do not agree": lambda: film(FRAMES[:15], moments()),
    "no frames": lambda: film([], moments()),
    "a flat map for a film": lambda: film(FRAMES, torch.rand(4, 4)),
    "no frames in a second": lambda: film(FRAMES, moments(), per_second=0),
    "a film map that is not finite": lambda: film(FRAMES, moments() * torch.nan),
    "a spectrogram of a batch": lambda: spectrogram(torch.rand(2, 100, 32), torch.rand(10, 4)),
    "no time": lambda: spectrogram(torch.rand(100, 32), torch.rand(10, 4), seconds=0),
    "a wave in stereo": lambda: wave(torch.rand(2, 100), torch.rand(10)),
    "a volume of channels": lambda: slices(torch.rand(2, 8, 8, 8), torch.rand(4, 4, 4)),
    "a picture for a volume": lambda: slices(torch.rand(8, 8, 8), torch.rand(4, 4)),
    "a mark outside": lambda: Mark.at_pixel((4, 0), (4, 4)),
    "a mark of a batch": lambda: Mark.of_region(torch.ones(2, 4, 4)),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_drawn_is_refused(what: str) -> None:
    with pytest.raises(CaptumVitError, match="Try: "):
        WRONG[what]()


@pytest.mark.slow
def test_constant_maps_and_silence_are_drawn() -> None:
    for figure in (
        film(FRAMES, torch.zeros(8, 4, 4), colour_bar=True),
        spectrogram(torch.zeros(10, 4), torch.zeros(5, 2), colour_bar=True),
        wave(torch.zeros(100), torch.zeros(5), colour_bar=True),
        slices(torch.zeros(4, 4, 4), torch.zeros(2, 2, 2), colour_bar=True),
    ):
        figure.canvas.draw()
    assert not pyplot.get_fignums()
