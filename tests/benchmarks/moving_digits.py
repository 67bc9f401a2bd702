"""Films with known answers: two handwritten digits that move in different directions, and a small video transformer.

What is asked of a film is which directions there are in it. No frame alone tells. It is known which pixels move in
which direction: the strokes of one digit, in each frame. The digits are the scans of `digit_scenes`, with its split.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from captum_vit.demo.digits.scenes import choose_scans

FRAMES, SIDE, TALL = 8, 48, 16  # frames of a film; pixels of its side, and of a digit's
NAMES = ("left", "right", "up", "down")
STEPS = torch.tensor([[0.0, -1.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])  # down and to the right
TRIES = 64


@dataclass(frozen=True)
class Known:
    """A batch of inputs and what is true of them."""

    inputs: Tensor  # as the model takes them
    classes: Tensor  # shape: (B, 2), what is there, -1 where something was left out
    masks: Tensor  # shape: (B, 2, T, H, W), bool


def films(n: int, split: str, seed: int, without: int | None = None) -> Known:
    """Films (n, 8, 3, 48, 48) in about [-1, 1]; digit ``without`` is left out, and everything else stays as it was."""
    generator = Generator().manual_seed(seed)
    directions = torch.rand(n, 4, generator=generator).argsort(1)[:, :2]
    scans = choose_scans(torch.randint(10, (n, 2), generator=generator), split, generator)
    centres = _paths(directions, generator)  # shape: (n, 2, T, 2)
    ink = _written(torch.from_numpy(load_digits().images / 16).float()[scans], centres)  # shape: (n, 2, T, S, S)
    colour = 0.3 + 0.7 * torch.rand(n, 2, 1, 3, 1, 1, generator=generator)
    ground = 0.15 + 0.1 * torch.rand(n, 1, 3, 1, 1, generator=generator)
    noise = 0.06 * torch.randn(n, FRAMES, 3, SIDE, SIDE, generator=generator)
    there = (torch.arange(2) != (-1 if without is None else without)).expand(n, 2)
    seen = ink * there[..., None, None, None]
    pixels = ground * (1 - seen.sum(1))[:, :, None] + (seen[:, :, :, None] * colour).sum(1) + noise
    return Known(2 * pixels.clamp(0, 1) - 1, directions.masked_fill(~there, -1), ink > 0.3)


def _paths(directions: Tensor, generator: Generator) -> Tensor:
    """Centres of digits in each frame, (n, 2, T, 2): inside, and apart from each other as far as may be."""
    n, half = len(directions), TALL / 2
    speed = 1.5 + 1.5 * torch.rand(n, 1, 2, 1, generator=generator)
    by = STEPS[directions][:, None] * speed  # shape: (n, 1, 2, 2), pixels a frame
    free = SIDE - 2 * half - (FRAMES - 1) * by.abs()
    first = half + free * torch.rand(n, TRIES, 2, 2, generator=generator) - (FRAMES - 1) * by.clamp_max(0)
    path = first[:, :, :, None] + by[:, :, :, None] * torch.arange(FRAMES)[:, None]  # shape: (n, TRIES, 2, T, 2)
    apart = (path[:, :, 0] - path[:, :, 1]).abs().amax(-1).amin(-1)
    return path[torch.arange(n), apart.clamp_max(TALL).argmax(1)]


def _written(scans: Tensor, centres: Tensor) -> Tensor:
    """Scans (n, 2, 8, 8) on empty frames, round their centres: (n, 2, T, S, S)."""
    place = (torch.arange(SIDE) + 0.5 - centres[..., None]) / (TALL / 2)  # shape: (n, 2, T, 2, S), from -1 to 1
    rows, columns = place.unbind(3)
    grid = torch.stack([columns[..., None, :].expand(*rows.shape, SIDE), rows[..., None].expand(*rows.shape, SIDE)], -1)
    glyphs = scans[:, :, None].expand(-1, -1, FRAMES, -1, -1).flatten(0, 2)[:, None]
    fine = F.interpolate(glyphs, scale_factor=4, mode="bicubic")
    ink = F.grid_sample(fine, grid.flatten(0, 2), align_corners=False)
    return (3 * (ink - 0.45) + 0.5).clamp(0, 1).view(*centres.shape[:3], SIDE, SIDE)


def video_vit() -> nn.Module:
    """A VideoMAE: patches of 8 x 8 pixels in two frames, so 4 x 6 x 6 tokens, whose mean the classifier reads."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256}
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    return VideoMAEForVideoClassification(
        VideoMAEConfig(image_size=SIDE, patch_size=8, num_frames=FRAMES, tubelet_size=2, **sizes, **labels)
    ).eval()
