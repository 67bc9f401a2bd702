"""Many methods at a glance: a cell for each, in which its maps stand side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.viz.blending import ALPHA, Picture, blend, large, plane, spotlight
from captum_vit.viz.colours import PERCENTILE, scale_of

INK = "#222222"
_SIDE = 1.2  # inches that a picture takes
_ACROSS = 12  # pictures in a row of cells
_GAP = 0.03  # white between the pictures of a cell, by their width
_DPI = 100


def gallery(
    images: Sequence[Picture],
    cells: Mapping[str, Sequence[Tensor] | Tensor],
    *,
    names: Sequence[str] = (),
    masks: Sequence[Tensor] | Tensor | None = None,
    columns: int | None = None,
    percentile: float = PERCENTILE,
    signed: bool | None = None,
    alpha: float = ALPHA,
) -> Figure:
    """The inputs, masks if there are any, and then every method's maps of them, cell by cell.

    :func:`~captum_vit.viz.panels` gives a method a column; this gives it a cell, and stays readable with fifty of them.

    Args:
        images: R pictures of one size; the same one again and again where several targets are explained.
        cells: title of each cell, and its R maps, (R, h, w) or (R, 1, h, w) or a list of maps.
        names: what the maps of a cell are for, one after the other.
        masks: R masks (H, W): True or positive where the object is; a cell of their own.
        columns: cells in a row; as many as twelve pictures fill by default.
        percentile: as for :func:`~captum_vit.viz.overlay`; each map has its own scale.
        signed: as for :func:`~captum_vit.viz.overlay`.
        alpha: as for :func:`~captum_vit.viz.overlay`.

    Raises:
        InputError: no cells, pictures of several sizes, or images, maps and masks that do not agree in number.

    Example:
        >>> gallery([image, image], {"CDAM": maps, "Attention": others}, names=["cat", "dog"])  # doctest: +SKIP
    """
    pictures = [large(image) for image in images]
    maps = {name: [plane(relevance) for relevance in cell] for name, cell in cells.items()}
    _agree(pictures, maps | ({} if masks is None else {"masks": list(masks)}))

    shown = {": ".join(filter(None, ["input", ", ".join(names)])): [_rgb(picture) for picture in pictures]}
    if masks is not None:
        shown["mask"] = [spotlight(picture, mask) for picture, mask in zip(pictures, masks, strict=True)]
    for name, cell in maps.items():
        scales = [scale_of(relevance, percentile=percentile, signed=signed) for relevance in cell]
        parts = zip(pictures, cell, scales, strict=True)
        shown[name] = [blend(picture, relevance, scale=scale, alpha=alpha) for picture, relevance, scale in parts]
    return _page(shown, columns or max(1, _ACROSS // len(pictures)))


def _agree(pictures: Sequence[Tensor], cells: Mapping[str, Sequence[Tensor]]) -> None:
    """As many maps in each cell as there are pictures, which are of one size."""
    counts = {f"cell {name!r}": len(cell) for name, cell in cells.items()}
    if not cells or not pictures or set(counts.values()) != {len(pictures)}:
        got = ", ".join(f"{name} has {count}" for name, count in counts.items()) or "no cells"
        hint = '{"a title": maps}, with a map for each image.'
        raise InputError(f"At least one cell, and {len(pictures) or 'some'} maps in each, as images.", got, hint)
    if len(sizes := {tuple(picture.shape[1:]) for picture in pictures}) > 1:
        raise InputError("Pictures of one size.", f"sizes {sorted(sizes)}", "a gallery for each size.")


def _page(shown: Mapping[str, Sequence[np.ndarray]], columns: int) -> Figure:
    """Cells row by row; a figure with its own canvas, so that pyplot's list of figures stays as it was."""
    strips = {name: _strip(parts) for name, parts in shown.items()}
    height, width, _ = next(iter(strips.values())).shape
    columns, across = min(columns, len(strips)), _SIDE * len(next(iter(shown.values())))
    rows = -(-len(strips) // columns)
    size = across * columns, (across * height / width + 0.25) * rows
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid:
        axes.set_axis_off()
    for axes, (name, strip) in zip(grid, strips.items(), strict=False):
        axes.imshow(strip.clip(0, 1))
        axes.set_title(name, fontsize=9, color=INK, pad=3, parse_math=False)
    return figure


def _strip(parts: Sequence[np.ndarray]) -> np.ndarray:  # shape of each: (H, W, 3)
    """Pictures side by side, with white between them."""
    height, width, _ = parts[0].shape
    gap = np.ones((height, round(_GAP * width), 3))
    return np.concatenate([piece for part in parts for piece in (gap, part)][1:], axis=1)


def _rgb(picture: Tensor) -> np.ndarray:  # shape: (H, W, 3)
    return picture.permute(1, 2, 0).numpy()
