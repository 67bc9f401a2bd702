"""Small movements of pictures: flipped, turned, enlarged, shifted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Movement:
    """A linear map of pictures: flipped left to right, then turned and enlarged about the centre, then shifted.

    Between pixels it is bilinear, and what comes from beyond the picture is zero.

    Args:
        flip: whether left and right change places.
        turn: degrees, clockwise.
        scale: 1 keeps the size.
        shift: to the right and down, as shares of width and height.
    """

    flip: bool = False
    turn: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def __call__(
        self,
        pictures: Tensor,  # shape: (B, C, H, W)
    ) -> Tensor:  # shape: (B, C, H, W)
        """The pictures, moved."""
        flipped = pictures.flip(-1) if self.flip else pictures
        if (self.turn, self.scale, self.shift) == (0.0, 1.0, (0.0, 0.0)):
            return flipped
        dtype = torch.promote_types(pictures.dtype, torch.float32)
        height, width = pictures.shape[-2:]
        read = torch.tensor([self._source(height / width)], dtype=dtype, device=pictures.device)
        grid = F.affine_grid(read, [1, 1, height, width], align_corners=False).expand(len(pictures), -1, -1, -1)
        return F.grid_sample(flipped.to(dtype), grid, align_corners=False).to(pictures.dtype)

    def _source(self, ratio: float) -> list[list[float]]:  # shape: (2, 3)
        """Where a pixel is read, from where it is written; from -1 to 1 along width and height, which have a ratio."""
        cos, sin = (
            part / self.scale for part in (math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn)))
        )
        right, down = (2 * part for part in self.shift)
        rows = [[cos, sin * ratio], [-sin / ratio, cos]]
        return [[a, b, -a * right - b * down] for a, b in rows]


def drawn(generator: Generator, *, flip: float, turn: float, scale: float, shift: float) -> Movement:
    """A movement at random: flipped with a probability, and evenly up to so many degrees and shares to both sides."""
    u = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    sides = [2 * part - 1 for part in u[1:]]
    return Movement(u[0] < flip, turn * sides[0], 1 + scale * sides[1], (shift * sides[2], shift * sides[3]))
