"""Volumes with known answers: two solids of different shapes in noise, and a small transformer of volumes.

What is asked of a volume is which shapes there are in it; it is known which voxels each of them takes. Solids lie
along any axis, have any grey brighter than the ground, and sizes whose middle third is kept for testing.
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Generator, Tensor, nn

from tests.benchmarks.moving_digits import Known

SIDE, PATCH = 24, 4
NAMES = ("ball", "shell", "rod", "ring")
TRIES = 64
REACH = 5.5  # voxels from the middle of a solid to its surface, at most


def volumes(n: int, split: str, seed: int, without: int | None = None) -> Known:
    """Volumes (n, 1, 24, 24, 24); solid ``without`` is left out, and everything else stays as it was."""
    generator = Generator().manual_seed(seed)
    shapes = torch.rand(n, len(NAMES), generator=generator).argsort(1)[:, :2]
    size = torch.rand(n, 2, generator=generator) / 3
    low = torch.rand(n, 2, generator=generator) < 0.5
    size = size + 1 / 3 if split == "test" else torch.where(low, size, size + 2 / 3)
    size = 0.8 + 0.2 * size  # of the largest
    inside = _solids(shapes, size, generator)  # shape: (n, 2, S, S, S), bool
    grey = 1 + 0.8 * torch.rand(n, 2, 1, 1, 1, generator=generator)
    clouds = nn.functional.interpolate(
        0.35 * torch.randn(n, 1, 4, 4, 4, generator=generator), SIDE, mode="trilinear", align_corners=False
    )
    noise = 0.25 * torch.randn(n, 1, SIDE, SIDE, SIDE, generator=generator)
    there = (torch.arange(2) != (-1 if without is None else without)).expand(n, 2)
    seen = inside * (there[..., None, None, None] * grey)
    return Known(clouds + noise + seen.sum(1, keepdim=True), shapes.masked_fill(~there, -1), inside)


def _solids(shapes: Tensor, size: Tensor, generator: Generator) -> Tensor:
    """Which voxels each solid takes, (n, 2, S, S, S), at places apart from each other as far as may be."""
    n = len(shapes)
    centres = REACH + (SIDE - 2 * REACH) * torch.rand(n, TRIES, 2, 3, generator=generator)
    apart = (centres[:, :, 0] - centres[:, :, 1]).norm(dim=-1)
    centre = centres[torch.arange(n), apart.clamp_max(2 * REACH).argmax(1)]  # shape: (n, 2, 3)
    axis = torch.arange(SIDE) + 0.5
    voxels = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).flatten(0, 2)  # shape: (S^3, 3)
    turn = torch.eye(3)[torch.rand(n, 2, 3, generator=generator).argsort(-1)]
    x = (voxels - centre[:, :, None]) @ turn / (REACH * size[..., None, None])  # shape: (n, 2, S^3, 3)
    inside = torch.stack(_forms(x))[shapes, torch.arange(n)[:, None], torch.arange(2)]
    return inside.view(n, 2, SIDE, SIDE, SIDE)


def _forms(x: Tensor) -> list[Tensor]:
    """Whether points, in units of a solid's reach, lie in each form, in the order of NAMES."""
    r, across, along = x.norm(dim=-1), x[..., :2].norm(dim=-1), x[..., 2]
    return [
        r < 0.75,
        (r < 0.95) & (r > 0.6),
        (across < 0.3) & (along.abs() < 1),
        ((across - 0.72) ** 2 + along**2).sqrt() < 0.28,
    ]


class VolumeViT(nn.Module):
    """Patches of 4 x 4 x 4 voxels, so 6 x 6 x 6 tokens, through a transformer; the classifier reads their mean."""

    def __init__(self, width: int = 48, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv3d(1, width, PATCH, PATCH)
        self.positions = nn.Parameter(0.02 * torch.randn((SIDE // PATCH) ** 3, width))
        self.blocks = nn.Sequential(*(Block(width, 4, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(NAMES))

    def forward(self, volume: Tensor) -> Tensor:  # shape: (B, 1, S, S, S) -> (B, 4)
        x = self.patches(volume).flatten(2).mT + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))
