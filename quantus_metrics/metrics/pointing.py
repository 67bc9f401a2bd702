"""The pointing game: is the map's highest point on the object?"""

from __future__ import annotations

from torch import Tensor

from .masks import chance, enlarged, grown

__all__ = ["chance", "pointing_accuracy", "pointing_hits"]


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
    large, masks = enlarged(maps, masks)
    at = large.flatten(1).argmax(1, keepdim=True)
    return grown(masks, tolerance).flatten(1).gather(1, at).squeeze(1) > 0


def pointing_accuracy(maps: Tensor, masks: Tensor, tolerance: int = 0) -> float:
    """The share of maps that point at their object; see :func:`pointing_hits`."""
    return pointing_hits(maps, masks, tolerance).double().mean().item()
