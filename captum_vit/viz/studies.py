"""Pictures of studies: curves over blocks, start layers and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from captum_vit.viz.colours import finite

__all__ = ["Figure", "cutoff_curves", "layer_curves", "option_curve"]

INK, FAINT, LINE = "#222222", "#767676", "#e4e4e2"
SERIES = ("#ee5f0a", "#1a6fd0", "#6d1b86", "#3a8f6b", "#b8860b", "#555555")
"""Distinct for the colour-blind, and by their lightness on a grey printer; the first two suffice for most studies."""

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
    figure = new_figure(2.9 * len(measures), 2.5)
    for axes, measure in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
        for colour, (kind, by_measure) in zip(SERIES, kinds.items(), strict=False):
            _mean_line(axes, finite(by_measure[measure]), colour, kind, most=1.0 if measure == "accuracy" else np.inf)
        block_axis(axes, by_measure[measure].shape[1])
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
    figure = new_figure(4.2, 2.8)
    axes = figure.subplots()
    for colour, (name, values) in zip(_colours(len(scores)), scores.items(), strict=True):
        y = finite(values).numpy()
        axes.plot(y, color=colour, lw=1.8, marker="o", ms=3.5, label=name, zorder=3)
        axes.plot(best[name], y[best[name]], "o", ms=9, mfc="none", mec=colour, mew=1.4, zorder=4)
    for place, label in {0: "PLUS", middle: "SkipPLUS"}.items():
        axes.axvline(place, color=FAINT, lw=0.8, ls=(0, (2, 2)), zorder=1)
        axes.annotate(label, (place, 1.02), xycoords=("data", "axes fraction"), ha="center", fontsize=8, color=FAINT)
    block_axis(axes, len(next(iter(scores.values()))), "start layer m")
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
    that are not distinguished from the best are filled, the others hollow.
    """
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    x = np.asarray(values, dtype=float) if numbers else np.arange(len(values))
    y, (low, high) = finite(mean).numpy(), finite(interval).numpy().T
    figure = new_figure(4.2, 2.8)
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


def _mean_line(axes: Axes, values: Tensor, colour: str, label: str, most: float) -> None:
    """The mean over samples, and the band in which it lies; no measure is below 0 or above ``most``."""
    mean, blocks = values.mean(0).numpy(), np.arange(values.shape[1])
    axes.plot(blocks, mean, color=colour, lw=1.8, marker="o", ms=3.5, label=label, zorder=3)
    if len(values) > 1:
        half = 1.96 * (values.std(0) / len(values) ** 0.5).numpy()
        low, high = (mean - half).clip(0), (mean + half).clip(max=most)
        axes.fill_between(blocks, low, high, color=colour, alpha=0.16, lw=0, zorder=2)


def block_axis(axes: Axes, depth: int, label: str = "block") -> None:
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
    for name in axes.legend(frameon=False, fontsize=8, labelcolor=INK, handlelength=1.4).get_texts():
        name.set_parse_math(False)


def _colours(n: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(n)]


def new_figure(width: float, height: float) -> Figure:
    """A figure with its own canvas, so that pyplot's list of figures stays as it was."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure
