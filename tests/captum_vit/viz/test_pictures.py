"""Overlays and panels: colours mean what they say, and nothing outside the figure changes."""

from io import BytesIO

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from captum_vit.errors import CaptumVitError, InputError, OptionError
from captum_vit.viz import POSITIVE, SIGNED, blend, gallery, overlay, panels, scale_of
from captum_vit.viz.blending import pixels_of
from captum_vit.viz.studies import cutoff_curves

GREY = torch.full((3, 32, 32), 0.5)


def rendered(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_zero_is_neutral_and_signs_have_their_own_colours():
    relevance = torch.zeros(3, 3)
    relevance[0, 0], relevance[2, 2] = 2.0, -2.0
    rgb = blend(GREY, relevance, scale=scale_of(relevance, percentile=100))
    assert rgb[16, 16] == pytest.approx(0.5, abs=0.01)
    assert rgb[0, 0, 0] > rgb[0, 0, 2] + 0.3  # for: warm
    assert rgb[-1, -1, 2] > rgb[-1, -1, 0] + 0.3  # against: cold


def test_a_signed_scale_reaches_as_far_on_both_sides():
    scale = scale_of(torch.tensor([-1.0, 0.0, 4.0]), percentile=100)
    assert (scale.low, scale.high, scale.signed) == (-4, 4, True)
    assert scale.strength(torch.tensor([-4.0, -1.0, 0.0, 8.0])).tolist() == [-1, -0.25, 0, 1]


def test_a_scale_without_negatives_spans_the_values():
    scale = scale_of(torch.tensor([1.0, 2.0, 3.0]), percentile=100)
    assert (scale.low, scale.high, scale.signed) == (1, 3, False)
    assert scale.strength(torch.tensor([1.0, 2.0, 3.0])).tolist() == [0, 0.5, 1]


def test_one_outlier_does_not_swallow_the_colours():
    relevance = torch.cat([torch.linspace(0, 1, 999), torch.tensor([1000.0])])
    assert scale_of(relevance).high < 1.01
    assert scale_of(relevance, percentile=100).high == 1000


@pytest.mark.parametrize("signed", [True, False])
def test_a_lone_peak_beyond_the_percentile_is_still_seen(signed: bool):
    relevance = torch.zeros(14, 14)
    relevance[3, 3] = 1.0
    assert scale_of(relevance, signed=signed).high == 1


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_a_constant_map_adds_no_colour(value: float):
    relevance = torch.full((4, 4), value)
    assert blend(GREY, relevance) == pytest.approx(0.5)
    figure = overlay(GREY, relevance, colour_bar=True)
    assert any("constant" in text.get_text() for text in figure.axes[0].texts)
    rendered(figure)


def test_maps_stand_over_the_right_place():
    relevance = torch.zeros(4, 4)
    relevance[0, 3] = 1.0
    change = np.abs(blend(GREY, relevance) - 0.5).sum(-1)
    assert change[0, 31] > 0.5
    assert change[16:].max() == change[:, :16].max() == 0


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool])
def test_any_dtype_and_leading_ones_are_drawn(dtype: torch.dtype):
    rendered(overlay(GREY, (torch.rand(1, 1, 4, 4) > 0.5).to(dtype), title="map"))


def test_gradients_may_be_attached():
    rendered(overlay(GREY, torch.randn(4, 4, requires_grad=True)))


@pytest.mark.parametrize("bad", [torch.rand(2, 4, 4), torch.rand(4), torch.rand(0, 4), torch.full((4, 4), torch.nan)])
def test_maps_that_cannot_be_drawn_are_refused(bad: torch.Tensor):
    with pytest.raises(InputError):
        overlay(GREY, bad)


@pytest.mark.parametrize("bad", [torch.randn(3, 8, 8) * 3, torch.rand(2, 8, 8), torch.rand(8, 8)])
def test_pictures_that_are_none_are_refused(bad: torch.Tensor):
    with pytest.raises(InputError):
        overlay(bad, torch.rand(2, 2))


def test_a_percentile_must_be_one():
    with pytest.raises(OptionError):
        overlay(GREY, torch.rand(2, 2), percentile=0)


def test_pictures_come_as_pil_bytes_or_floats():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8))
    expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    assert torch.equal(pixels_of(image), expected / 255)
    assert torch.equal(pixels_of(expected), expected / 255)
    assert pixels_of(torch.rand(1, 6, 5)).shape == (3, 6, 5)


@pytest.mark.slow
def test_panels_have_a_column_per_method_and_a_row_per_target():
    maps = {"CDAM": torch.randn(2, 1, 4, 4), "Rollout": [torch.rand(4, 4), torch.rand(8, 8)]}
    figure = panels(GREY, maps, rows=["cat", "dog"], masks=torch.rand(2, 32, 32) > 0.5)
    assert titles(figure)[:4] == ["input", "mask", "CDAM", "Rollout"]
    assert len(figure.axes) == 8
    assert [axes.texts[0].get_text() for axes in figure.axes[::4]] == ["cat", "dog"]
    rendered(figure)


@pytest.mark.slow
def test_panels_take_a_picture_for_each_row():
    rendered(panels([GREY, torch.rand(3, 32, 64)], {"map": torch.rand(2, 4, 4)}, colour_bar=True, same_scale=True))


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": {}},
        {"columns": {"a": torch.rand(2, 4, 4), "b": torch.rand(3, 4, 4)}},
        {"columns": {"a": torch.rand(2, 4, 4)}, "rows": ["one"]},
        {"columns": {"a": torch.rand(2, 4, 4)}, "images": torch.rand(3, 3, 8, 8)},
        {"columns": {"a": []}},
    ],
)
def test_panels_that_do_not_agree_are_refused(wrong: dict):
    with pytest.raises(CaptumVitError):
        panels(**{"images": GREY} | wrong)


def test_pyplot_does_not_notice():
    settings, figures = dict(matplotlib.rcParams), pyplot.get_fignums()
    rendered(panels(GREY, {"map": torch.randn(1, 4, 4)}, colour_bar=True))
    assert dict(matplotlib.rcParams) == settings
    assert pyplot.get_fignums() == figures


def lightness(rgb: np.ndarray) -> np.ndarray:
    return rgb[..., :3] @ [0.2126, 0.7152, 0.0722]


def test_colours_survive_a_grey_printer():
    assert (np.diff(lightness(POSITIVE(np.linspace(0, 1, 50)))) > 0).all()
    sides = lightness(SIGNED(np.linspace(0, 1, 51)))
    assert (np.diff(sides[:26]) > 0).all() and (np.diff(sides[25:]) < 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["$5 or $6", "$\\frac$", "\\foo{$"])
def test_a_name_with_dollar_signs_is_no_formula(name: str):
    one = torch.eye(4)[None]
    for figure in (
        panels(torch.rand(3, 32, 32), {name: one}, rows=[name]),
        overlay(torch.rand(3, 32, 32), one[0], title=name),
        gallery([torch.rand(3, 32, 32)], {name: one}, names=[name]),
        cutoff_curves({name: torch.rand(4), "other": torch.rand(4)}, {name: 1, "other": 2}, 2),
    ):
        figure.savefig(BytesIO())
        named = [text for text in figure.findobj(Text) if name in text.get_text()]
        assert named and not any(text.get_parse_math() for text in named)
