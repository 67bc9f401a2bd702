"""Figures with canvases of their own, and what is drawn on their axes: pictures, titles, colour bars."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, Normal, Stroke

from captum_vit.options import number
from captum_vit.viz.colours import Scale

INK, FAINT = "#222222", "#8a8a8a"
WIDEST = 100  # inches
_DPI = 160
_PIXELS = 10**8  # of a figure, at most


def blank(width: float, height: float) -> Figure:
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


def widened(figure: Figure, width: float) -> Figure:
    """The figure at another width, in inches, in the same proportions."""
    before = figure.get_size_inches()
    times = number("width", width, above=0, most=WIDEST, hint="width=6.5, in inches.") / before[0]
    figure.set_size_inches(*(times * before))
    return figure


def draw(axes: Axes, rgb: np.ndarray, title: str = "") -> None:
    axes.imshow(rgb.clip(0, 1))
    axes.set_axis_off()
    if title:
        title_of(axes, title)


def title_of(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=9, color=INK, pad=4, parse_math=False)


def label_left(axes: Axes, text: str) -> None:
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


def draw_colour_bar(figure: Figure, axes: Axes, scale: Scale, within: bool = False) -> None:
    """A slim bar with its ends and zero, beside the axes or within them; for a constant map, its value in words."""
    if within and scale.flat:
        axes.set_axis_off()
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
    where: dict[str, Any] = {"cax": axes} if within else {"ax": axes, "fraction": 0.05, "pad": 0.02, "aspect": 24}
    bar = figure.colorbar(source, ticks=ticks, **where)
    bar.ax.set_yticklabels([_number(tick, scale) for tick in ticks])
    bar.ax.tick_params(length=0, labelsize=7, labelcolor=FAINT, pad=2)
    bar.outline.set_visible(False)


def _number(value: float, scale: Scale) -> str:
    """Two digits, a true minus, and plain 0 for what is nothing beside the scale."""
    small = abs(value) < 1e-3 * max(abs(scale.low), abs(scale.high))
    return "0" if small else f"{value:.2g}".replace("-", "−")


def framed(axes: Axes) -> None:
    """A line around a picture."""
    line = Rectangle((-0.015, -0.015), 1.03, 1.03, transform=axes.transAxes, fill=False, edgecolor=INK, linewidth=2)
    line.set_clip_on(False)
    axes.add_patch(line)


def cased(width: float) -> list[AbstractPathEffect]:
    """A dark edge along both sides of a light line, so that it shows on any ground; the width is that of both."""
    return [Stroke(linewidth=width, foreground=INK), Normal()]
