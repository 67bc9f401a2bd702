"""Pictures of studies: they say what the numbers say, at the edges too, and pyplot does not notice."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from captum_vit.errors import InputError
from captum_vit.viz.heads import head_mosaic, layer_bars
from captum_vit.viz.studies import cutoff_curves, layer_curves

PICTURE = torch.rand(3, 32, 32)


def mosaic(depth: int = 2, heads: int = 3, **given: torch.Tensor):
    parts = {
        "attention": torch.rand(depth, heads, 4, 4),
        "similarity": torch.rand(depth, heads),
        "weights": torch.full((depth, heads), 1 / (depth * heads)),
        "prediction": torch.rand(4, 4),
    }
    return head_mosaic(**{**parts, **given})


def tiles_of(figure) -> np.ndarray:
    (axes,) = (axes for axes in figure.axes if axes.texts)
    return np.asarray(axes.images[0].get_array())


def test_frames_deepen_with_similarity():
    rgb = tiles_of(mosaic(similarity=torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]])))
    cell = rgb.shape[0] // 2
    first, second, third = (rgb[5, column * cell + 5].sum() for column in range(3))  # inside the frames
    assert first > second > third
    assert rgb[0, 0].tolist() == [1, 1, 1]  # white between the frames


def test_every_attention_map_stands_in_its_own_place():
    attention = torch.zeros(2, 3, 4, 4)
    attention[1, 2, 0, 0] = 1
    plain, marked = (tiles_of(mosaic(attention=a, similarity=torch.ones(2, 3))) for a in (attention * 0, attention))
    rows, columns = np.nonzero((plain != marked).any(-1))
    cell = plain.shape[0] // 2
    assert rows.min() > cell and columns.min() > 2 * cell


@pytest.mark.slow
def test_alike_similarities_are_drawn_too():
    mosaic(similarity=torch.full((2, 3), 0.3)).canvas.draw()
    mosaic(1, 1, picture=PICTURE).canvas.draw()


def test_weights_stand_in_per_cent():
    weights = torch.tensor([[0.1, 0.1, 0.1], [0.3, 0.3, 0.1]])
    (axes,) = (axes for axes in mosaic(weights=weights).axes if axes.texts)
    assert {"30 %", "70 %"} <= {text.get_text() for text in axes.texts}


@pytest.mark.slow
def test_bands_need_more_than_one_sample():
    one, many = (
        layer_curves({"CLS token": {"entropy": torch.rand(n, 4)}, "patches": {"entropy": torch.rand(n, 4)}})
        for n in (1, 5)
    )
    assert [len(figure.axes[0].collections) for figure in (one, many)] == [0, 2]
    one.canvas.draw()
    many.canvas.draw()


def test_the_tallest_bars_stand_out():
    colours = [bar.get_facecolor() for bar in layer_bars(torch.tensor([3, 1, 3])).axes[0].patches]
    assert colours[0] == colours[2] != colours[1]
    with pytest.raises(InputError):
        layer_bars(torch.zeros(0))


def test_the_best_cutoff_is_ringed():
    axes = cutoff_curves({"a": torch.tensor([1.0, 4, 2])}, {"a": 1}, middle=2).axes[0]
    assert axes.lines[1].get_xdata() == [1]
    assert axes.get_legend() is None  # one line needs no name


@pytest.mark.slow
def test_many_methods_find_a_colour():
    scores = {f"method {i}": torch.rand(3) for i in range(9)}
    cutoff_curves(scores, dict.fromkeys(scores, 0), middle=2).canvas.draw()


def test_nothing_is_drawn_from_what_is_not_finite():
    with pytest.raises(InputError):
        cutoff_curves({"a": torch.tensor([1.0, torch.nan])}, {"a": 0}, middle=1)
    with pytest.raises(InputError):
        layer_bars(torch.tensor([1.0, torch.inf]))


def test_pyplot_does_not_notice():
    before = pyplot.get_fignums()
    mosaic()
    layer_bars(torch.ones(3))
    assert pyplot.get_fignums() == before
