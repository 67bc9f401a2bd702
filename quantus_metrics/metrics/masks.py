"""Maps beside masks: brought to one size, and refused where they cannot be."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import InputError

from .batch import Samples


def enlarged(
    maps: Tensor,  # shape: (B, h, w) or (B, 1, h, w), of patches or of pixels
    masks: Tensor,  # shape: (B, H, W) or (B, 1, H, W)
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> tuple[Tensor, Tensor]:  # shapes: (B, H, W) both
    """Each map at the size of its mask, which patches divide evenly, and the mask."""
    maps = maps.unsqueeze(1) if maps.dim() == 3 else maps
    masks = masks.squeeze(1) if masks.dim() == 4 else masks
    if maps.dim() != 4 or maps.shape[1] != 1 or masks.dim() != 3 or len(masks) != len(maps):
        raise InputError(
            "One map (B, 1, h, w) and one mask (B, H, W) per sample.",
            f"maps of shape {tuple(maps.shape)}, masks of shape {tuple(masks.shape)}",
            "maps.sum(1) where they have channels.",
        )
    size = (masks.shape[1], masks.shape[2])
    if mode == "nearest":
        return F.interpolate(maps, size=size, mode="nearest-exact").squeeze(1), masks
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False).squeeze(1), masks


def check_masks(samples: Samples, unlabelled: bool = False) -> None:
    """One mask per image and of its size, 1 on the object and 0 beside it, with something of each.

    Args:
        samples: with `s_batch`.
        unlabelled: accept −1 where nothing is known.
    """
    height, width = samples.x_batch.shape[-2:]
    masks: Any = None if samples.s_batch is None else np.asarray(samples.s_batch)
    if masks is None or masks.shape[1:] not in ((1, height, width), (height, width)):
        raise InputError(
            f"Masks s_batch of shape (N, 1, {height}, {width}), as large as the images.",
            "none" if masks is None else f"shape {masks.shape}",
            "the masks in s_batch, resized with the images.",
        )
    masks = masks.reshape(len(masks), -1)
    allowed = (-1, 0, 1) if unlabelled else (0, 1)
    if not np.isin(masks, allowed).all():
        raise InputError(f"Masks of {', '.join(map(str, allowed))}.", "other values", "s_batch == the object's label.")
    bare = ~((masks == 1).any(1) & (masks == 0).any(1))
    if bare.any():
        raise InputError(
            "Masks with some of the object and some background.",
            f"otherwise in sample(s) {np.flatnonzero(bare)[:10].tolist()}",
            "leave these samples out.",
        )


def chance(
    masks: Tensor,  # shape: (B, H, W)
    tolerance: int = 0,
) -> float:
    """What a random point would score: the mean share of the picture that counts as a hit."""
    return torch.mean(grown(masks, tolerance)).item()


def grown(
    masks: Tensor,  # shape: (B, H, W)
    tolerance: int,
) -> Tensor:  # shape: (B, H, W)
    """Masks with a rim of so many pixels, along rows and columns."""
    return F.max_pool2d(masks[:, None].float(), 2 * tolerance + 1, stride=1, padding=tolerance).squeeze(1)
