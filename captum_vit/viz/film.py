"""Maps over time: a strip of frames, and how much of the evidence each moment has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.options import integer, number
from captum_vit.viz.blending import ALPHA, Picture, blend, large, pixels_of, solid
from captum_vit.viz.colours import AGAINST, FOR, PERCENTILE, scale_of
from captum_vit.viz.figures import FAINT, INK, blank, draw, draw_colour_bar, framed, title_of

_WIDE = 1.35  # inches of a frame
_BARS = 0.55  # inches of the bars below


def film(
    frames: Sequence[Picture] | Tensor,
    relevance: Tensor,  # shape: (t, h, w)
    *,
    title: str = "",
    per_second: float | None = None,
    most: int = 8,
    percentile: float = PERCENTILE,
    signed: bool | None = None,
    alpha: float = ALPHA,
    colour_bar: bool = False,
) -> Figure:
    """A video as a strip: its frames, the map over them, and the evidence of every moment as bars.

    All maps share one scale. The bars are sums over a frame, of positive relevance upward and of negative relevance
    downward, on an axis of time; the moment with the most of both has a line around it. Of a long video each of
    ``most`` stretches of equal length is shown by its strongest moment.

    Args:
        frames: the T frames that the model saw, (T, 3, H, W) in [0, 1] or a list of pictures.
        relevance: (t, h, w) or (1, t, h, w); each of t moments covers T / t frames, and stands on the middle one.
        title: a line above.
        per_second: frames in a second, so that the axis is in seconds; else it counts frames.
        most: moments that are shown, at most.
        percentile: as for :func:`~captum_vit.viz.overlay`.
        signed: as for :func:`~captum_vit.viz.overlay`.
        alpha: as for :func:`~captum_vit.viz.overlay`.
        colour_bar: whether the values stand beside the frames.

    Raises:
        InputError: frames and map that do not agree, or cannot be drawn.

    Example:
        >>> film(frames, maps[0], per_second=8, title="rolling ball").savefig("film.png")  # doctest: +SKIP
    """
    relevance, pictures = solid(relevance, "(t, h, w)"), list(frames)
    times = len(pictures) / len(relevance)
    if not pictures or times != int(times):
        wanted = "As many frames as the map has moments, or a multiple."
        hint = "the frames that the model saw, after its processor picked them."
        raise InputError(wanted, f"{len(pictures)} frames for {len(relevance)} moments", hint)
    unit = 1.0 if per_second is None else number("per_second", per_second, above=0, hint="per_second=25.")
    evidence = torch.stack([relevance.clamp_min(0).flatten(1).sum(1), relevance.clamp_max(0).flatten(1).sum(1)])
    strength = evidence.abs().sum(0)
    shown = strongest_of(strength, integer("most", most, hint="most=8."))
    middles = [int(times * moment + times / 2) for moment in shown]
    scale = scale_of(relevance, percentile=percentile, signed=signed)

    height, width = pixels_of(pictures[0]).shape[1:]
    tall = _WIDE * min(max(height / width, 0.3), 3.0)
    figure = blank(_WIDE * max(len(shown), 3) + 0.35 * colour_bar, 2 * tall + _BARS)
    widths = [_WIDE] * len(shown) + [0.05] * colour_bar
    grid = figure.add_gridspec(3, len(widths), height_ratios=[tall, tall, _BARS], width_ratios=widths)
    peak = shown.index(int(strength.argmax()))
    for column, (moment, middle) in enumerate(zip(shown, middles, strict=True)):
        picture, over = large(pictures[middle]), [figure.add_subplot(grid[row, column]) for row in (0, 1)]
        draw(over[0], picture.permute(1, 2, 0).numpy())
        draw(over[1], blend(picture, relevance[moment], scale=scale, alpha=alpha))
        title_of(over[0], f"frame {middle}" if per_second is None else f"{middle / unit:.3g} s")
        if column == peak:
            framed(over[1])
            over[0].title.set_fontweight("bold")
    bars = figure.add_subplot(grid[2, : len(shown)])
    _bars(bars, evidence, times / unit, shown)
    if per_second is None:
        bars.xaxis.set_major_locator(MaxNLocator(integer=True))
    bars.set_xlabel("frame" if per_second is None else "time (s)", fontsize=8, color=INK, labelpad=2)
    if title:
        figure.suptitle(title, fontsize=10, color=INK, parse_math=False)
    if colour_bar:
        draw_colour_bar(figure, figure.add_subplot(grid[1, -1]), scale, within=True)
    return figure


def strongest_of(strength: Tensor, most: int) -> list[int]:
    """All moments, or the strongest of each of ``most`` stretches of equal length."""
    if len(strength) <= most:
        return list(range(len(strength)))
    ends = torch.linspace(0, len(strength), most + 1).round().long().tolist()
    return [low + int(strength[low:high].argmax()) for low, high in pairwise(ends)]


def _bars(
    axes: Axes,
    evidence: Tensor,  # shape: (2, t), for and against
    width: float,
    shown: Sequence[int],
) -> None:
    """Bars for each moment, in the colour of their sign; those of moments that are not shown above are pale."""
    middles = (np.arange(evidence.shape[1]) + 0.5) * width
    for values, colour in zip(evidence.numpy(), (FOR, AGAINST), strict=True):
        bars = axes.bar(middles, values, 0.85 * width, color=colour)
        for moment, bar in enumerate(bars):
            bar.set_alpha(1.0 if moment in shown else 0.4)
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.set_xlim(0, width * len(middles))
    axes.set_ylabel("evidence", fontsize=8, color=INK, labelpad=2)
    axes.tick_params(labelsize=7, labelcolor=FAINT, length=2, pad=2)
    axes.set_yticks([])
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
