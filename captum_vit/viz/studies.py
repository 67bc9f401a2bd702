"""Pictures of studies: curves over blocks, attention of every head, and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import InputError
from captum_vit.viz.blending import Picture, blend, large, plane
from captum_vit.viz.colours import SIGNED, finite, scale_of

INK, FAINT, LINE = "#222222", "#767676", "#e4e4e2"
SERIES = ("#ee5f0a", "#1a6fd0", "#6d1b86", "#3a8f6b", "#b8860b", "#555555")
"""Told apart by every eye, and by their lightness on a grey printer; the first two suffice for most studies."""

AGREEMENT: Colormap = LinearSegmentedColormap.from_list("captum_vit_agreement", SIGNED(np.linspace(0.5, 1, 64)))
"""The half of the signed colours that speaks for."""

_DPI = 160
_UNITS = {
    "accuracy": "share that is right",
    "confidence": "gap of the two greatest logits",
    "entropy": "nats",
}


def layer_curves(
    kinds: Mapping[str, Mapping[str, Tensor]],  # kind of token -> measure -> (n, L)
) -> Figure:
    """A panel for each measure, a line for each kind of token: means over samples with 95 % intervals."""
    measures = list(next(iter(kinds.values())))
    figure = _figure(2.9 * len(measures), 2.5)
    for axes, measure in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
        for colour, (kind, by_measure) in zip(SERIES, kinds.items(), strict=False):
            _mean_line(axes, finite(by_measure[measure]), colour, kind, most=1.0 if measure == "accuracy" else np.inf)
        _block_axis(axes, by_measure[measure].shape[1])
        axes.set_title(measure, fontsize=10, color=INK, loc="left", pad=16)
        axes.text(0, 1.03, _UNITS.get(measure, ""), transform=axes.transAxes, fontsize=7.5, color=FAINT)
        axes.set_ylim(bottom=0, top=1.03 if measure == "accuracy" else None)
    _legend(figure.axes[0])
    return figure


def cutoff_curves(
    scores: Mapping[str, Tensor],  # method -> (L,)
    best: Mapping[str, int],
    middle: int,
    score: str = "score",
) -> Figure:
    """A line for each method over start layers; where PLUS and SkipPLUS start is marked, the best is ringed."""
    figure = _figure(4.2, 2.8)
    axes = figure.subplots()
    for colour, (name, values) in zip(_colours(len(scores)), scores.items(), strict=True):
        y = finite(values).numpy()
        axes.plot(y, color=colour, lw=1.8, marker="o", ms=3.5, label=name, zorder=3)
        axes.plot(best[name], y[best[name]], "o", ms=9, mfc="none", mec=colour, mew=1.4, zorder=4)
    for place, label in {0: "PLUS", middle: "SkipPLUS"}.items():
        axes.axvline(place, color=FAINT, lw=0.8, ls=(0, (2, 2)), zorder=1)
        axes.annotate(label, (place, 1.02), xycoords=("data", "axes fraction"), ha="center", fontsize=8, color=FAINT)
    _block_axis(axes, len(next(iter(scores.values()))), "start layer m")
    axes.margins(y=0.12)
    axes.set_ylabel(score, fontsize=8, color=FAINT)
    if len(scores) > 1:
        _legend(axes)
    return figure


def option_curve(
    option: str,
    values: Sequence[Any],
    mean: Tensor,  # shape: (V,)
    interval: Tensor,  # shape: (V, 2)
    best: int,
    as_good: Sequence[bool],
    score: str = "score",
) -> Figure:
    """The mean score of every value of an option with its interval; the best is ringed and named.

    Numbers stand where they are on their axis and are joined by a line; other values stand side by side. Values
    that are not told from the best are filled, the others hollow.
    """
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    x = np.asarray(values, dtype=float) if numbers else np.arange(len(values))
    y, (low, high) = finite(mean).numpy(), finite(interval).numpy().T
    figure = _figure(4.2, 2.8)
    axes = figure.subplots()
    if numbers:
        order = x.argsort()
        axes.fill_between(x[order], low[order], high[order], color=SERIES[0], alpha=0.14, lw=0, zorder=2)
        axes.plot(x[order], y[order], color=SERIES[0], lw=1.6, zorder=3)
    else:
        axes.vlines(x, low, high, color=SERIES[0], lw=4, alpha=0.25, zorder=2)
    faces = [SERIES[0] if good else "white" for good in as_good]
    axes.scatter(x, y, s=22, c=faces, edgecolors=SERIES[0], linewidths=1.3, zorder=4)
    axes.plot(x[best], y[best], "o", ms=10, mfc="none", mec=INK, mew=1.2, zorder=5)
    axes.annotate(f"best: {values[best]}", (x[best], 1.02), xycoords=("data", "axes fraction"), ha="center",
                  fontsize=8, color=INK)  # fmt: skip
    _value_axis(axes, option, None if numbers else [str(value) for value in values])
    axes.margins(x=0.08, y=0.12)
    axes.set_ylabel(score, fontsize=8, color=FAINT)
    return figure


def layer_bars(
    counts: Tensor,  # shape: (L,)
) -> Figure:
    """How many samples each block counts; the tallest bar stands out."""
    values = finite(counts).numpy()
    if values.ndim != 1 or len(values) == 0:
        raise InputError("Counts of shape (L,).", f"shape {tuple(counts.shape)}", "one number for each block.")
    figure = _figure(max(2.6, 0.8 + 0.32 * len(values)), 2.4)
    axes = figure.subplots()
    colours = [SERIES[0] if value == values.max() else "#f7c59f" for value in values]
    bars = axes.bar(np.arange(len(values)), values, 0.72, color=colours)
    axes.bar_label(bars, [f"{value:g}" if value else "" for value in values], fontsize=8, color=INK, padding=2)
    _block_axis(axes, len(values))
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
    figure = _figure(2.1 + cell * (heads + 2), max(cell * (depth + 1.4), 2.6))
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


def _mean_line(axes: Axes, values: Tensor, colour: str, label: str, most: float) -> None:
    """The mean over samples, and the band in which it lies; no measure is below 0 or above ``most``."""
    mean, blocks = values.mean(0).numpy(), np.arange(values.shape[1])
    axes.plot(blocks, mean, color=colour, lw=1.8, marker="o", ms=3.5, label=label, zorder=3)
    if len(values) > 1:
        half = 1.96 * (values.std(0) / len(values) ** 0.5).numpy()
        low, high = (mean - half).clip(0), (mean + half).clip(max=most)
        axes.fill_between(blocks, low, high, color=colour, alpha=0.16, lw=0, zorder=2)


def _block_axis(axes: Axes, depth: int, label: str = "block") -> None:
    axes.set_xlim(-0.6, depth - 0.4)
    axes.set_xticks(range(0, depth, -(-depth // 12)))
    _value_axis(axes, label)


def _value_axis(axes: Axes, label: str, names: Sequence[str] | None = None) -> None:
    """A quiet axis to the right, with a name for each place where values are no numbers."""
    if names is not None:
        axes.set_xticks(range(len(names)), names)
    axes.set_xlabel(label, fontsize=8, color=FAINT)
    axes.tick_params(length=0, labelsize=7.5, labelcolor=INK, pad=3)
    axes.grid(axis="y", color=LINE, lw=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines.bottom.set_color(LINE)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, handlelength=1.4)


def _colours(n: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(n)]


def _figure(width: float, height: float) -> Figure:
    """A figure with its own canvas, so that pyplot's list of figures stays as it was."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure
