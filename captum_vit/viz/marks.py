"""What a dense target is about, drawn into its picture: a ring at a pixel, the outline of a region, a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import InputError
from captum_vit.options import shown
from captum_vit.targets.dense import Pixel, Region
from captum_vit.targets.rows import Box, Query, box_of
from captum_vit.viz.blending import plane
from captum_vit.viz.figures import cased

_LINE: dict[str, Any] = {"color": "white", "linewidth": 1.3, "path_effects": cased(2.6), "clip_on": False}
_FINE = 256  # an outline follows a mask enlarged to this


@dataclass(frozen=True)
class Mark:
    """A place in a picture, in fractions of its height and width, so that it fits the picture at any size.

    Args:
        point: (y, x), drawn as a ring.
        box: top, left, bottom and right edge.
        mask: (h, w), positive inside, of the same extent as the picture; its outline is drawn.

    Example:
        >>> overlay(image, relevance, mark=Mark.at_pixel((5, 7), size=(16, 16)))  # doctest: +SKIP
    """

    point: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    mask: Tensor | None = None

    @classmethod
    def at_pixel(cls, at: Sequence[int], size: Sequence[int]) -> Mark:
        """The middle of one pixel of an output of this height and width.

        Raises:
            InputError: a pixel outside.
        """
        if len(at) != 2 or len(size) != 2 or not all(0 <= i < n for i, n in zip(at, size, strict=True)):
            raise InputError(f"A pixel (y, x) inside {tuple(size)}.", shown(tuple(at)), "size=(height, width).")
        y, x = ((i + 0.5) / n for i, n in zip(at, size, strict=True))
        return cls(point=(y, x))

    @classmethod
    def of_region(cls, mask: Tensor) -> Mark:
        """The outline of a mask (h, w)."""
        return cls(mask=plane(mask))

    @classmethod
    def of_box(cls, numbers: Sequence[float] | Tensor) -> Mark:
        """A box as DETR, YOLOS and their kin give it: its centre's x and y, width and height, as fractions."""
        x, y, width, height = (float(number) for number in numbers)
        return cls(box=(y - height / 2, x - width / 2, y + height / 2, x + width / 2))

    def draw(self, axes: Axes) -> None:
        """Into axes that hold the picture."""
        if self.point is not None:
            y, x = self.point
            ring: dict[str, Any] = {
                "marker": "o",
                "markersize": 9,
                "markerfacecolor": "none",
                "transform": axes.transAxes,
            }
            axes.plot([x], [1 - y], **ring, markeredgewidth=1.3, **_LINE)
        if self.box is not None:
            top, left, bottom, right = (min(max(edge, 0.0), 1.0) for edge in self.box)
            xs, ys = [left, right, right, left, left], [top, top, bottom, bottom, top]
            axes.plot(xs, [1 - y for y in ys], transform=axes.transAxes, **_LINE)
        if self.mask is not None:
            _outline(axes, self.mask)


def _outline(axes: Axes, mask: Tensor) -> None:
    """The edges between pixels inside and outside a mask, in axes that hold a picture."""
    times = max(1, _FINE // max(mask.shape))
    inside = F.pad((mask > 0).float().repeat_interleave(times, 0).repeat_interleave(times, 1), (1, 1, 1, 1))
    left, right = sorted(axes.get_xlim())
    top, bottom = sorted(axes.get_ylim())
    h, w = (n - 2 for n in inside.shape)
    xs = left + (torch.arange(-1, w + 1) + 0.5) / w * (right - left)
    ys = top + (torch.arange(-1, h + 1) + 0.5) / h * (bottom - top)
    lines = axes.contour(xs.numpy(), ys.numpy(), inside.numpy(), [0.5], colors="white", linewidths=1.3)
    lines.set_path_effects(cased(2.6))
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def mark_of(model: nn.Module, inputs: tuple[Any, ...]) -> Mark | None:
    """What a dense target is about, for one picture: a pixel, a region, a query's box; None for any other model.

    Costs a forward pass for a pixel that is counted in the output, and for a box.
    """
    if isinstance(model, Region) and model.mask is not None and model.mask.dim() == 2:
        return Mark.of_region(model.mask)
    if isinstance(model, Pixel) and model.at is not None and len(model.at) == 2:
        size = model.size if model.size is not None else model.space(*inputs)
        return Mark.at_pixel(model.at, size)
    if isinstance(model, Query | Box) and model.number is not None:
        box = box_of(model, *inputs)
        return None if box is None else Mark.of_box(box[0])
    return None
