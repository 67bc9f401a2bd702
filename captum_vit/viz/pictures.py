"""Maps over pictures: one overlay, or panels that set methods and targets side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from PIL.Image import Image
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.options import number
from captum_vit.viz.blending import ALPHA, Picture, blend, large, pixels_of, plane, spotlight
from captum_vit.viz.colours import PERCENTILE, scale_of
from captum_vit.viz.figures import WIDEST, blank, draw, draw_colour_bar, label_left, title_of
from captum_vit.viz.marks import Mark


def overlay(
    image: Picture,
    relevance: Tensor,  # shape: (h, w), a grid or pixels
    *,
    title: str = "",
    percentile: float = PERCENTILE,
    signed: bool | None = None,
    alpha: float = ALPHA,
    colour_bar: bool = False,
    mark: Mark | None = None,
) -> Figure:
    """One map over its picture.

    Args:
        image: the picture that the model saw, (3, H, W) in [0, 1] or PIL.
        relevance: a grid of patches or a map of pixels, of the same extent as the picture.
        title: a line above.
        percentile: relevance beyond it is drawn at full colour; see :func:`~captum_vit.viz.scale_of`.
        signed: diverge from zero; None looks for negative values.
        alpha: how dense the strongest colour is, in [0, 1].
        colour_bar: whether the values stand beside it.
        mark: what a dense target is about, a pixel, a region or a box; see :class:`~captum_vit.viz.Mark`.

    Returns:
        a matplotlib figure that pyplot does not know; ``figure.savefig(path)`` writes it.

    Example:
        >>> overlay(torch.rand(3, 32, 32), torch.randn(4, 4)).savefig("map.png")  # doctest: +SKIP
    """
    figure = blank(3.0, 3.0 * _tallness(image))
    axes = figure.subplots()
    scale = scale_of(plane(relevance), percentile=percentile, signed=signed)
    draw(axes, blend(large(image), relevance, scale=scale, alpha=alpha), title)
    if mark is not None:
        mark.draw(axes)
    if colour_bar:
        draw_colour_bar(figure, axes, scale)
    return figure


def panels(
    images: Picture | Sequence[Picture],
    columns: Mapping[str, Sequence[Tensor] | Tensor],
    *,
    rows: Sequence[str] | None = None,
    masks: Sequence[Tensor] | Tensor | None = None,
    percentile: float = PERCENTILE,
    signed: bool | None = None,
    same_scale: bool = False,
    alpha: float = ALPHA,
    colour_bar: bool = False,
    width: float | None = None,
    mark: Mark | None = None,
) -> Figure:
    """The input, a mask if there is one, and a column per method; a row per image or per target.

    Args:
        images: one picture for all rows, or one for each row.
        columns: title of each column, and its R maps, (R, h, w) or (R, 1, h, w) or a list of maps.
        rows: R labels, at the left.
        masks: R masks (H, W): True or positive where the object is; a column of their own.
        percentile: as for :func:`overlay`.
        signed: as for :func:`overlay`.
        alpha: as for :func:`overlay`.
        same_scale: one scale down each column, so that its rows can be compared; else each map has its own.
        colour_bar: whether the values stand beside each map.
        width: of the figure, in inches; by default 1.75 for each column.
        mark: what a dense target is about, in the input and in every map; as for :func:`overlay`.

    Raises:
        InputError: columns, rows, masks and images that do not agree in number.

    Example:
        >>> panels(image, {"CDAM": maps, "Attention": others}, rows=["cat", "dog"])  # doctest: +SKIP
    """
    maps = {name: [plane(relevance) for relevance in column] for name, column in columns.items()}
    n_rows = _agree(maps, rows, masks)
    pictures = [large(picture) for picture in _one_for_each(images, n_rows)]

    leading = ["input"] if masks is None else ["input", "mask"]
    usual, height = (1.75 + 0.35 * colour_bar) * (len(leading) + len(maps)), 1.75 * _tallness(pictures[0])
    times = 1 if width is None else number("width", width, above=0, most=WIDEST, hint="width=6.5, in inches.") / usual
    figure = blank(times * usual, times * height * n_rows)
    grid = figure.subplots(n_rows, len(leading) + len(maps), squeeze=False)
    for row, picture in enumerate(pictures):
        draw(grid[row, 0], picture.permute(1, 2, 0).numpy())
        if masks is not None:
            draw(grid[row, 1], spotlight(picture, masks[row]))
        if rows is not None:
            label_left(grid[row, 0], rows[row])
    for axes, name in zip(grid[0], [*leading, *maps], strict=True):
        title_of(axes, name)
    for column, own in zip(grid.T[len(leading) :], maps.values(), strict=True):
        for axes, picture, relevance in zip(column, pictures, own, strict=True):
            scale = scale_of(*(own if same_scale else [relevance]), percentile=percentile, signed=signed)
            draw(axes, blend(picture, relevance, scale=scale, alpha=alpha))
            if colour_bar:
                draw_colour_bar(figure, axes, scale)
    if mark is not None:
        for axes in (*grid.T[0], *grid.T[len(leading) :].flatten()):
            mark.draw(axes)
    return figure


def _agree(maps: Mapping[str, list[Tensor]], rows: Any, masks: Any) -> int:
    """The number of rows on which everything agrees."""
    counts = {f"column {name!r}": len(column) for name, column in maps.items()}
    counts |= {name: len(given) for name, given in (("rows", rows), ("masks", masks)) if given is not None}
    if not maps or len(set(counts.values())) != 1 or 0 in counts.values():
        got = ", ".join(f"{name} has {count}" for name, count in counts.items())
        wanted = "At least one column, and the same number of maps, rows and masks."
        raise InputError(wanted, got or "no columns", '{"a title": maps}, with a map for each row.')
    return next(iter(counts.values()))


def _one_for_each(images: Picture | Sequence[Picture], n_rows: int) -> list[Picture]:
    """A picture for each row: the same for all, or their own."""
    if isinstance(images, Image) or (isinstance(images, Tensor) and (images.dim() == 3 or len(images) == 1)):
        return [images] * n_rows
    if len(images) != n_rows:
        wanted = f"One image, or one for each of {n_rows} rows."
        raise InputError(wanted, f"{len(images)} images", "images[0], if all rows explain the same one.")
    return list(images)


def _tallness(picture: Picture) -> float:
    """Height over width, kept from extremes."""
    height, width = pixels_of(picture).shape[1:]
    return min(max(height / width, 0.3), 3.0)
