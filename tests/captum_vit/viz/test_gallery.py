"""A page with a cell for each method: every map stands in its place, and fifty methods stay readable."""

import numpy as np
import pytest
import torch

from captum_vit.errors import InputError
from captum_vit.viz import blend, gallery

GREY = torch.full((3, 32, 32), 0.5)
FIRST, SECOND = torch.zeros(2, 4, 4).unbind()
FIRST[0, 0] = SECOND[3, 3] = 1


def test_a_cell_holds_the_maps_of_its_method_side_by_side():
    maps = {"A": torch.stack([FIRST, SECOND]), "B": [SECOND, FIRST]}
    figure = gallery([GREY, GREY], maps, names=["cat", "dog"], masks=torch.ones(2, 32, 32))
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["input: cat, dog", "mask", "A", "B"]
    *_, a, b = (np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images)
    height, width, _ = a.shape
    left, right = a[:, :height], a[:, width - height :]
    large = torch.full((3, height, height), 0.5)
    np.testing.assert_allclose(left, blend(large, FIRST))
    np.testing.assert_allclose(right, blend(large, SECOND))
    np.testing.assert_array_equal(b[:, :height], right)
    assert (a[:, height : width - height] == 1).all() and width > 2 * height  # white between them


@pytest.mark.slow
@pytest.mark.parametrize("each", [1, 5])
def test_a_page_of_fifty_is_as_wide_as_a_screen(each: int):
    figure = gallery([GREY] * each, {str(i): torch.rand(each, 4, 4) for i in range(50)})
    width, height = figure.get_size_inches() * figure.dpi
    assert 1000 <= width <= 1600 and height <= 4 * width
    boxes = [axes.get_position() for axes in figure.axes if axes.images]
    assert len(boxes) == 51 and len({round(box.y0, 2) for box in boxes}) > 4  # rows
    figure.canvas.draw()
    shown = [axes.get_window_extent() for axes in figure.axes if axes.images]
    assert min(box.width for box in shown) >= each * 90  # pixels


@pytest.mark.parametrize(
    "wrong",
    [
        {"cells": {}},
        {"images": []},
        {"cells": {"a": torch.rand(3, 4, 4)}},
        {"masks": torch.ones(1, 32, 32)},
        {"images": [GREY, torch.rand(3, 32, 64)]},
    ],
)
def test_what_does_not_agree_is_refused(wrong: dict):
    with pytest.raises(InputError):
        gallery(**{"images": [GREY, GREY], "cells": {"a": torch.rand(2, 4, 4)}} | wrong)
