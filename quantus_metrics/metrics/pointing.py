"""The pointing game: is the map's highest point on the object?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import InputError


def pointing_hits(
    maps: Tensor,  # shape: (B, h, w) or (B, 1, h, w), of patches or of pixels
    masks: Tensor,  # shape: (B, H, W), True on the object
    tolerance: int = 0,
) -> Tensor:  # shape: (B,), bool
    """Whether the maximum of each map, enlarged bilinearly, lies within ``tolerance`` pixels of its object.

    Reads     the share of hits is the pointing accuracy; higher is better, chance is the dilated object's area.
    Watch     a map that is constant points at its first pixel.

    Args:
        maps: relevance; signs count, only the largest value is looked at.
        masks: the object of each sample.
        tolerance: how far beside the object still counts, in pixels along rows and columns.

    Reference: Zhang et al., Top-down Neural Attention by Excitation Backprop, for the game and its tolerance.
    """
    maps = maps.unsqueeze(1) if maps.dim() == 3 else maps
    if masks.dim() != 3 or len(masks) != len(maps) or maps.shape[1] != 1:
        raise InputError(
            "One map (B, 1, h, w) and one mask (B, H, W) per sample.",
            f"maps of shape {tuple(maps.shape)}, masks of shape {tuple(masks.shape)}",
        )
    large = F.interpolate(maps, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    grown = F.max_pool2d(masks[:, None].to(maps.dtype), 2 * tolerance + 1, stride=1, padding=tolerance)
    at = large.flatten(1).argmax(1, keepdim=True)
    return grown.flatten(1).gather(1, at).squeeze(1) > 0


def pointing_accuracy(maps: Tensor, masks: Tensor, tolerance: int = 0) -> float:
    """The share of maps that point at their object; see :func:`pointing_hits`."""
    return pointing_hits(maps, masks, tolerance).double().mean().item()


def chance(masks: Tensor, tolerance: int = 0) -> float:
    """What a random point would score: the mean share of the picture that counts as a hit."""
    grown = F.max_pool2d(masks[:, None].float(), 2 * tolerance + 1, stride=1, padding=tolerance)
    return torch.mean(grown).item()
