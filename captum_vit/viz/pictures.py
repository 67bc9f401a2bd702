"""Maps over pictures: one overlay, or panels that set methods and targets side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL.Image import Image
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.options import number
from captum_vit.viz.blending import ALPHA, Picture, blend, large, pixels_of, plane, spotlight
from captum_vit.viz.colours import PERCENTILE, Scale, scale_of

INK, FAINT = "#222222", "#8a8a8a"
WIDEST = 100  # inches
_DPI = 160
_PIXELS = 10**8  # of a figure, at most


def overlay(
    image: Picture,
    relevance: Tensor,  # shape: (h, w), a grid or pixels
    *,
    title: str = "",
    percentile: float = PERCENTILE,
    signed: bool | None = None,
    alpha: float = ALPHA,
    colour_bar: bool = False,
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

    Returns:
        a matplotlib figure that pyplot does not know; ``figure.savefig(path)`` writes it.

    Example:
        >>> overlay(torch.rand(3, 32, 32), torch.randn(4, 4)).savefig("map.png")  # doctest: +SKIP
    """
    figure = _figure(3.0, 3.0 * _tallness(image))
    axes = figure.subplots()
    scale = scale_of(plane(relevance), percentile=percentile, signed=signed)
    _draw(axes, blend(large(image), relevance, scale=scale, alpha=alpha), title)
    if colour_bar:
        _colour_bar(figure, axes, scale)
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
    figure = _figure(times * usual, times * height * n_rows)
    grid = figure.subplots(n_rows, len(leading) + len(maps), squeeze=False)
    for row, picture in enumerate(pictures):
        _draw(grid[row, 0], picture.permute(1, 2, 0).numpy())
        if masks is not None:
            _draw(grid[row, 1], spotlight(picture, masks[row]))
        if rows is not None:
            _label(grid[row, 0], rows[row])
    for axes, name in zip(grid[0], [*leading, *maps], strict=True):
        _title(axes, name)
    for column, own in zip(grid.T[len(leading) :], maps.values(), strict=True):
        for axes, picture, relevance in zip(column, pictures, own, strict=True):
            scale = scale_of(*(own if same_scale else [relevance]), percentile=percentile, signed=signed)
            _draw(axes, blend(picture, relevance, scale=scale, alpha=alpha))
            if colour_bar:
                _colour_bar(figure, axes, scale)
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


def _figure(width: float, height: float) -> Figure:
    """A figure with its own canvas, so that pyplot's list of figures stays as it was."""
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0, compress=True)
    figure = Figure(figsize=(width, height + 0.25), dpi=_DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def with_dpi(figure: Figure, dpi: float) -> Figure:
    """The figure at another resolution.

    Raises:
        OptionError: no positive number, or more than a hundred million pixels.
    """
    width, height = figure.get_size_inches()
    most = math.sqrt(_PIXELS / (width * height))
    hint = f"dpi=300, or a smaller width; at most {most:.0f} here."
    figure.set_dpi(number("dpi", dpi, above=0, most=most, hint=hint))
    return figure


def _draw(axes: Axes, rgb: np.ndarray, title: str = "") -> None:
    axes.imshow(rgb.clip(0, 1))
    axes.set_axis_off()
    if title:
        _title(axes, title)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=9, color=INK, pad=4, parse_math=False)


def _label(axes: Axes, text: str) -> None:
    axes.text(
        -0.06,
        0.5,
        text,
        transform=axes.transAxes,
        ha="right",
        va="center",
        fontsize=9,
        color=INK,
        linespacing=1.4,
        parse_math=False,
    )


def _colour_bar(figure: Figure, axes: Axes, scale: Scale) -> None:
    """A slim bar with its ends and zero; for a constant map, its value in words."""
    if scale.flat:
        axes.text(
            1.04,
            0.5,
            f"constant\n{scale.low:.2g}",
            transform=axes.transAxes,
            va="center",
            fontsize=7,
            color=FAINT,
        )
        return
    source = ScalarMappable(Normalize(scale.low, scale.high), scale.colours)
    ticks = [scale.low, 0, scale.high] if scale.signed else [scale.low, scale.high]
    bar = figure.colorbar(source, ax=axes, ticks=ticks, fraction=0.05, pad=0.02, aspect=24)
    bar.ax.set_yticklabels([_number(tick, scale) for tick in ticks])
    bar.ax.tick_params(length=0, labelsize=7, labelcolor=FAINT, pad=2)
    bar.outline.set_visible(False)


def _number(value: float, scale: Scale) -> str:
    """Two digits, a true minus, and plain 0 for what is nothing beside the scale."""
    small = abs(value) < 1e-3 * max(abs(scale.low), abs(scale.high))
    return "0" if small else f"{value:.2g}".replace("-", "−")
