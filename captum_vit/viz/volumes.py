"""Maps inside volumes: three slices through the strongest voxel, and a strip along the depth."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from captum_vit.options import integer
from captum_vit.viz.blending import ALPHA, blend, large, solid, stretched
from captum_vit.viz.colours import PERCENTILE, Scale, scale_of
from captum_vit.viz.figures import INK, blank, cased, draw, draw_colour_bar, framed, title_of

_SIDE = 1.9  # inches of a slice's longer side
_AXES = "zyx"


def slices(
    volume: Tensor,  # shape: (D, H, W)
    relevance: Tensor,  # shape: (d, h, w)
    *,
    title: str = "",
    most: int = 6,
    percentile: float = PERCENTILE,
    signed: bool | None = None,
    alpha: float = ALPHA,
    colour_bar: bool = False,
) -> Figure:
    """A volume where the map is strongest: the three slices through that voxel, and below a strip along z.

    The first picture is the slice across z without the map. Thin lines show where the other two slices lie. All slices
    share one scale. The map is enlarged trilinearly; the voxel is the middle of the cell with the largest absolute
    relevance.

    Args:
        volume: (D, H, W), or with leading dimensions of size 1, in any units; shown from its first to its 99th
            percentile.
        relevance: (d, h, w) or (1, d, h, w), of the same extent.
        title: a line above.
        most: slices in the strip, at most, evenly along z, the strongest voxel's among them.
        percentile: as for :func:`~captum_vit.viz.overlay`.
        signed: as for :func:`~captum_vit.viz.overlay`.
        alpha: as for :func:`~captum_vit.viz.overlay`.
        colour_bar: whether the values stand beside the slices.

    Raises:
        InputError: a volume or a map that cannot be drawn.

    Example:
        >>> slices(scan[0, 0], maps[0], title="lesion").savefig("lesion.png")  # doctest: +SKIP
    """
    grey, relevance = stretched(solid(volume, "(D, H, W)")), solid(relevance, "(d, h, w)")
    scale = scale_of(relevance, percentile=percentile, signed=signed)
    at = strongest_voxel(relevance, tuple(grey.shape))
    fine = F.interpolate(relevance[None, None], size=grey.shape, mode="trilinear", align_corners=False)[0, 0]
    strip = _evenly(grey.shape[0], integer("most", most, hint="most=6."), at[0])
    figure = blank(4 * _SIDE + 0.5 * colour_bar, _SIDE * (1 + 4 / len(strip)) + 0.35)
    grid = figure.add_gridspec(2, 1, height_ratios=[_SIDE, 4 * _SIDE / len(strip)])
    above = grid[0].subgridspec(1, 4 + colour_bar, width_ratios=[1, 1, 1, 1, 0.04][: 4 + colour_bar])
    plain = figure.add_subplot(above[0])
    draw(plain, _picture(grey, 0, at[0]).permute(1, 2, 0).numpy(), "input")
    for axis in range(3):
        axes = figure.add_subplot(above[axis + 1])
        _slice(axes, grey, fine, axis, at[axis], scale, alpha)
        _crosshair(axes, axis, at, grey.shape)
        title_of(axes, f"{_AXES[axis]} = {at[axis]} of {grey.shape[axis]}")
    if colour_bar:
        draw_colour_bar(figure, figure.add_subplot(above[4]), scale, within=True)
    below = grid[1].subgridspec(1, len(strip))
    for column, z in enumerate(strip):
        axes = figure.add_subplot(below[column])
        _slice(axes, grey, fine, 0, z, scale, alpha)
        title_of(axes, f"z = {z}")
        if z == at[0]:
            framed(axes)
    if title:
        figure.suptitle(title, fontsize=10, color=INK, parse_math=False)
    return figure


def strongest_voxel(relevance: Tensor, size: tuple[int, ...]) -> list[int]:
    """The voxel in the middle of the cell of the largest absolute relevance."""
    cell = torch.unravel_index(relevance.abs().argmax(), relevance.shape)
    return [int((int(i) + 0.5) * n / k) for i, n, k in zip(cell, size, relevance.shape, strict=True)]


def _evenly(n: int, most: int, among: int) -> list[int]:
    """So many numbers below n at equal distances, of which the nearest is replaced by one that must be there."""
    count = min(most, n)
    found = [int((i + 0.5) * n / count) for i in range(count)]
    nearest = min(range(count), key=lambda i: abs(found[i] - among))
    return [among if i == nearest else z for i, z in enumerate(found)]


def _picture(grey: Tensor, axis: int, place: int) -> Tensor:  # shape: (3, kH, kW)
    return large(grey.select(axis, place).expand(3, -1, -1))


def _slice(axes: Axes, grey: Tensor, fine: Tensor, axis: int, place: int, scale: Scale, alpha: float) -> None:
    draw(axes, blend(_picture(grey, axis, place), fine.select(axis, place), scale=scale, alpha=alpha))


def _crosshair(axes: Axes, axis: int, at: list[int], size: torch.Size) -> None:
    """Lines where the two other slices cut this one, broken near the voxel; and the names of its axes."""
    down, across = (i for i in range(3) if i != axis)
    y, x = ((at[i] + 0.5) / size[i] for i in (down, across))
    line: dict[str, Any] = {"color": "white", "linewidth": 0.9, "transform": axes.transAxes, "path_effects": cased(1.9)}
    for low, high in ((0, x - 0.12), (x + 0.12, 1)):
        if high > low:
            axes.plot([low, high], [1 - y, 1 - y], **line)
    for low, high in ((0, 1 - y - 0.12), (1 - y + 0.12, 1)):
        if high > low:
            axes.plot([x, x], [low, high], **line)
    words: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 8, "color": INK}
    axes.text(0.5, -0.03, f"{_AXES[across]} →", ha="center", va="top", **words)
    axes.text(-0.03, 0.5, f"← {_AXES[down]}", ha="right", va="center", rotation=90, **words)
