"""Pictures of attention heads: every map beside the prediction map, and the blocks that agree most."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import InputError
from captum_vit.viz.blending import Picture, blend, large, plane
from captum_vit.viz.colours import SIGNED, finite, scale_of
from captum_vit.viz.studies import FAINT, INK, SERIES, block_axis, new_figure

__all__ = ["Figure", "head_mosaic", "layer_bars"]

AGREEMENT: Colormap = LinearSegmentedColormap.from_list("captum_vit_agreement", SIGNED(np.linspace(0.5, 1, 64)))
"""The positive half of the signed colours."""


def layer_bars(
    counts: Tensor,  # shape: (L,)
) -> Figure:
    """How many samples each block counts; the tallest bar stands out."""
    values = finite(counts).numpy()
    if values.ndim != 1 or len(values) == 0:
        raise InputError("Counts of shape (L,).", f"shape {tuple(counts.shape)}", "one number for each block.")
    figure = new_figure(max(2.6, 0.8 + 0.32 * len(values)), 2.4)
    axes = figure.subplots()
    colours = [SERIES[0] if value == values.max() else "#f7c59f" for value in values]
    bars = axes.bar(np.arange(len(values)), values, 0.72, color=colours)
    axes.bar_label(bars, [f"{value:g}" if value else "" for value in values], fontsize=8, color=INK, padding=2)
    block_axis(axes, len(values))
    axes.grid(False)
    axes.margins(y=0.16)
    axes.spines.left.set_visible(False)
    axes.set_yticks([])
    axes.set_title("where the attention most like\nthe prediction map comes from", fontsize=9, color=INK, loc="left")
    axes.set_ylabel("samples", fontsize=8, color=FAINT)
    return figure


def head_mosaic(
    attention: Tensor,  # shape: (L, H, h, w)
    similarity: Tensor,  # shape: (L, H)
    weights: Tensor,  # shape: (L, H)
    prediction: Tensor,  # shape: (h, w)
    picture: Picture | None = None,
) -> Figure:
    """Every attention map, block by head, each on a scale of its own and in a frame as deep as its similarity.

    At the left the picture and the prediction map; at the right the weight that each block has altogether.
    """
    depth, heads = similarity.shape
    cell = 0.62 if max(depth, heads) <= 8 else 0.46  # inches
    figure = new_figure(2.1 + cell * (heads + 2), max(cell * (depth + 1.4), 2.6))
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.8, cell * (heads + 2) + 0.3])[0]
    shown = {} if picture is None else {"input": large(picture).permute(1, 2, 0).numpy()}
    shown["prediction map"] = _tile(prediction, picture)
    columns = left.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, (name, rgb) in zip(columns, shown.items(), strict=True):
        axes.imshow(rgb.clip(0, 1))
        axes.set_axis_off()
        axes.set_title(name, fontsize=9, color=INK, pad=4)
    shades = finite(similarity)
    norm = Normalize(shades.min().item(), shades.max().item())
    axes = right.subplots()  # a unit is a cell, for all that follows
    axes.imshow(_mosaic(attention, AGREEMENT(norm(shades.numpy()))[..., :3], picture), extent=(0, heads, depth, 0))
    _block_head_axes(axes, depth, heads)
    _weight_bars(axes, finite(weights).sum(1), heads + 0.15)
    axes.set_xlim(0, heads + 1.9)
    axes.set_ylim(depth + 0.9, 0)
    below = axes.inset_axes((0.07, depth + 0.2, heads - 0.14, 0.14), transform=axes.transData)
    bar = right.colorbar(ScalarMappable(norm, AGREEMENT), cax=below, orientation="horizontal")
    bar.set_label("similarity with the prediction map", fontsize=8, color=FAINT)
    bar.ax.tick_params(length=0, labelsize=7, labelcolor=FAINT, pad=2)
    bar.ax.xaxis.set_major_locator(MaxNLocator(4))
    bar.outline.set_visible(False)
    return figure


def _mosaic(
    attention: Tensor,  # shape: (L, H, h, w)
    frames: np.ndarray,  # shape: (L, H, 3)
    picture: Picture | None,
) -> np.ndarray:  # shape: (L*cell, H*cell, 3)
    """Framed tiles on white, edge to edge."""
    side, frame, gap = 88, 8, 3
    cell = side + 2 * (frame + gap)
    canvas = np.ones((attention.shape[0] * cell, attention.shape[1] * cell, 3))
    for (row, column), tile in ((place, attention[place]) for place in np.ndindex(*attention.shape[:2])):
        square = np.ones((side + 2 * frame, side + 2 * frame, 3)) * frames[row, column]
        square[frame:-frame, frame:-frame] = _resized(_tile(tile, picture), side)
        top, left = row * cell + gap, column * cell + gap
        canvas[top : top + len(square), left : left + len(square)] = square
    return canvas.clip(0, 1)


def _tile(relevance: Tensor, picture: Picture | None) -> np.ndarray:  # shape: (H, W, 3)
    """One map over its picture, or by itself."""
    if picture is not None:
        return blend(large(picture), relevance)
    scale, values = scale_of(plane(relevance)), plane(relevance)
    enlarged = F.interpolate(values[None, None], scale_factor=16, mode="bilinear", align_corners=False)[0, 0]
    return scale.paint(scale.strength(enlarged))


def _resized(rgb: np.ndarray, side: int) -> np.ndarray:  # shape: (side, side, 3)
    channels = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    return F.interpolate(channels, (side, side), mode="area")[0].permute(1, 2, 0).numpy()


def _block_head_axes(axes: Axes, depth: int, heads: int) -> None:
    axes.set_xticks(np.arange(heads) + 0.5, [str(head) for head in range(heads)])
    axes.set_yticks(np.arange(depth) + 0.5, [str(block) for block in range(depth)])
    axes.xaxis.tick_top()
    axes.text(heads / 2, -0.42, "head", fontsize=8, color=FAINT, ha="center")
    axes.text(-0.55, depth / 2, "block", fontsize=8, color=FAINT, va="center", ha="center", rotation=90)
    axes.tick_params(length=0, labelsize=7.5, labelcolor=INK, pad=2)
    axes.spines[:].set_visible(False)


def _weight_bars(axes: Axes, weights: Tensor, start: float) -> None:
    """What each block weighs altogether, beside its row."""
    places, widths = np.arange(len(weights)) + 0.5, (weights / weights.max()).numpy()
    axes.barh(places, widths, 0.3, left=start, color=SERIES[1])
    for place, width, weight in zip(places, widths, weights.tolist(), strict=True):
        axes.text(start + width + 0.06, place, f"{100 * weight:.0f} %", fontsize=7, color=FAINT, va="center")
    axes.text(start, -0.12, "weight", fontsize=8, color=FAINT)
