"""A map as a segmentation of its object."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_jaccard_index

from captum_vit.errors import InputError


def foreground(
    maps: Tensor,  # shape: (B, h, w) or (B, 1, h, w)
    size: tuple[int, int],
) -> Tensor:  # shape: (B, H, W), bool
    """Pixels above the mean of their map, after it is enlarged bilinearly.

    Reference: Chefer et al., Transformer Interpretability Beyond Attention Visualization (their threshold is
    the mean of the map scaled to 0 ... 1, which is the same set of pixels).
    """
    maps = maps.unsqueeze(1) if maps.dim() == 3 else maps
    large = F.interpolate(maps, size=size, mode="bilinear", align_corners=False).squeeze(1)
    return large > large.mean((1, 2), keepdim=True)


def mean_iou(
    maps: Tensor,  # shape: (B, h, w) or (B, 1, h, w)
    masks: Tensor,  # shape: (B, H, W), True on the object
) -> float:
    """Mean of the intersection over union of object and of background, over the totals of the data set.

    Reads     0 to 1, higher is better.
    Watch     it is a number of the whole set: the mean of single images' values is another one.
    """
    if masks.dim() != 3 or len(masks) != len(maps):
        raise InputError("One mask (B, H, W) per map.", f"{tuple(masks.shape)} for maps {tuple(maps.shape)}")
    found = foreground(maps, (masks.shape[1], masks.shape[2]))
    return multiclass_jaccard_index(found.long(), masks.long(), num_classes=2, average="macro").item()
