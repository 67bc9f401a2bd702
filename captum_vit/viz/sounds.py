"""Maps over sounds: on a spectrogram, or along the wave."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import InputError
from captum_vit.options import number
from captum_vit.viz.blending import ALPHA, blend, plane, stretched
from captum_vit.viz.colours import PERCENTILE, finite, scale_of
from captum_vit.viz.figures import FAINT, INK, blank, draw_colour_bar, title_of

_WIDE, _TALL = 6.5, 1.5  # inches of a panel
_POINTS = 4000  # of a wave that is drawn


def spectrogram(
    sound: Tensor,  # shape: (T, F)
    relevance: Tensor,  # shape: (t, f)
    *,
    title: str = "",
    seconds: float | None = None,
    percentile: float = PERCENTILE,
    signed: bool | None = None,
    alpha: float = ALPHA,
    colour_bar: bool = False,
) -> Figure:
    """A sound as a model with a spectrogram reads it, and the map over it: time to the right, frequency upward.

    Args:
        sound: (T, F) what the model read, frames of time by mel bands, in any units; shown from its first to its 99th
            percentile, light is loud.
        relevance: (t, f) or (1, t, f), of the same extent.
        title: a line above.
        seconds: how long it lasts, so that the axis is in seconds; else it counts frames.
        percentile: as for :func:`~captum_vit.viz.overlay`.
        signed: as for :func:`~captum_vit.viz.overlay`.
        alpha: as for :func:`~captum_vit.viz.overlay`.
        colour_bar: whether the values stand beside the map.

    Raises:
        InputError: a sound or a map that cannot be drawn.

    Example:
        >>> spectrogram(features[0], maps[0], seconds=10.24, title="bell").savefig("bell.png")  # doctest: +SKIP
    """
    levels, relevance = stretched(plane(sound)), plane(relevance)
    end = _end(len(levels), seconds)
    figure = blank(_WIDE, 2 * _TALL + 0.3)
    upper, lower = figure.subplots(2, 1, sharex=True)
    ends: dict[str, Any] = {"extent": (0, end, 0, levels.shape[1]), "origin": "lower", "aspect": "auto"}
    grey, turned = levels.T.expand(3, -1, -1), relevance.T
    scale = scale_of(relevance, percentile=percentile, signed=signed)
    upper.imshow(grey.permute(1, 2, 0).numpy(), **ends)
    lower.imshow(blend(grey, turned, scale=scale, alpha=alpha), **ends)
    for axes in (upper, lower):
        axes.set_ylabel("mel band", fontsize=8, color=INK, labelpad=2)
        _ticks(axes)
    lower.set_xlabel("time (s)" if seconds else "frame", fontsize=8, color=INK, labelpad=2)
    title_of(upper, title)
    if colour_bar:
        draw_colour_bar(figure, lower, scale)
    return figure


def wave(
    sound: Tensor,  # shape: (S,)
    relevance: Tensor,  # shape: (t,)
    *,
    title: str = "",
    seconds: float | None = None,
    percentile: float = PERCENTILE,
    signed: bool | None = None,
    colour_bar: bool = False,
) -> Figure:
    """A sound as a model of samples reads it: the wave, in the colour of the relevance at each time.

    Args:
        sound: (S,) or (1, S) samples.
        relevance: (t,) or (1, t); each of t frames covers S / t samples.
        title: a line above.
        seconds: how long it lasts, so that the axis is in seconds; else it counts samples.
        percentile: as for :func:`~captum_vit.viz.overlay`.
        signed: as for :func:`~captum_vit.viz.overlay`.
        colour_bar: whether the values stand beside it.

    Raises:
        InputError: a sound or a map that cannot be drawn.

    Example:
        >>> wave(sound[0], maps[0], seconds=2.5, title="yes").savefig("yes.png")  # doctest: +SKIP
    """
    samples, relevance = _line(sound, "sound"), _line(relevance, "map")
    end = _end(len(samples), seconds)
    scale = scale_of(relevance, percentile=percentile, signed=signed)
    figure = blank(_WIDE, _TALL)
    axes = figure.subplots()
    high = samples.abs().max().item() or 1.0
    n = min(_POINTS, len(samples))
    least, most = -F.adaptive_max_pool1d(-samples[None], n)[0], F.adaptive_max_pool1d(samples[None], n)[0]
    times = (torch.arange(n) + 0.5) * end / n
    strength = scale.strength(F.interpolate(relevance[None, None], size=n, mode="nearest")[0, 0])
    shaded = strength.abs().pow(0.7)[:, None].numpy()
    colours = (1 - shaded) * 0.72 + shaded * scale.paint(strength)
    low, top = least - 0.004 * high, most + 0.004 * high  # silence is a thin line
    ends = torch.stack([torch.stack([times, low], -1), torch.stack([times, top], -1)], 1)
    axes.add_collection(LineCollection(list(ends.numpy()), colors=colours, linewidths=max(1.0, 420 / n)))
    axes.set_xlim(0, end)
    axes.set_ylim(-1.05 * high, 1.05 * high)
    axes.set_xlabel("time (s)" if seconds else "sample", fontsize=8, color=INK, labelpad=2)
    axes.set_ylabel("amplitude", fontsize=8, color=INK, labelpad=2)
    _ticks(axes)
    title_of(axes, title)
    if colour_bar:
        draw_colour_bar(figure, axes, scale)
    return figure


def _line(values: Tensor, what: str) -> Tensor:  # shape: (n,), float32 on the CPU
    values = finite(values)
    if values.dim() < 1 or values.shape[:-1].numel() != 1 or values.numel() == 0:
        raise InputError(f"A {what} along time, (T,).", f"shape {tuple(values.shape)}", "one sample of the batch.")
    return values.flatten()


def _end(n: int, seconds: float | None) -> float:
    return n if seconds is None else number("seconds", seconds, above=0, hint="seconds=10.24.")


def _ticks(axes: Axes) -> None:
    axes.tick_params(labelsize=7, labelcolor=FAINT, length=2, pad=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
