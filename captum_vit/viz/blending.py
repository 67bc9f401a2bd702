"""Pictures and maps as arrays: checked, enlarged, and laid over each other."""

from __future__ import annotations

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import InputError
from captum_vit.inputs.rgb import rgb
from captum_vit.options import number
from captum_vit.viz.colours import Scale, finite, scale_of

Picture = Tensor | Image
"""(3, H, W) or (1, H, W) in [0, 1], or a PIL image."""

ALPHA = 0.85
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])
_LARGE = 224  # pictures with fewer pixels are enlarged before a map is laid over them
_MOST = 2**24  # torch.quantile takes no more values than this


def blend(
    picture: Picture,
    relevance: Tensor,  # shape: (h, w), leading dimensions of size 1 allowed
    *,
    scale: Scale | None = None,
    alpha: float = ALPHA,
) -> np.ndarray:  # shape: (H, W, 3), in [0, 1]
    """Colour laid over the greyed picture, the denser the stronger; elsewhere the picture stands clear.

    The map is enlarged bilinearly. A constant map adds no colour.

    Raises:
        InputError: a picture or a map that cannot be drawn (shape, range, NaN).
    """
    number("alpha", alpha, least=0, most=1, hint="alpha=0.85.")
    pixels, relevance = pixels_of(picture), plane(relevance)
    scale = scale or scale_of(relevance)
    large = F.interpolate(relevance[None, None], size=pixels.shape[1:], mode="bilinear", align_corners=False)
    strength = scale.strength(large[0, 0])  # (H, W)
    grey = torch.einsum("chw,c->hw", pixels, _LUMINANCE)[..., None].expand(-1, -1, 3).numpy()
    cover = alpha * strength.abs().pow(0.7)[..., None].numpy()
    return (1 - cover) * grey + cover * scale.paint(strength)


def pixels_of(picture: Picture) -> Tensor:  # shape: (3, H, W), float32 in [0, 1], on the CPU
    """A picture as numbers, checked.

    Raises:
        InputError: another shape, or values outside [0, 1].
    """
    if isinstance(picture, Image):
        return torch.from_numpy(np.asarray(rgb(picture)).copy()).permute(2, 0, 1) / 255
    pixels = picture if isinstance(picture, Tensor) else finite(picture)
    pixels = pixels[0] if pixels.dim() == 4 and len(pixels) == 1 else pixels
    if pixels.dim() != 3 or pixels.shape[0] not in (1, 3):
        got = f"shape {tuple(pixels.shape)}"
        raise InputError("A picture of shape (3, H, W).", got, "picture.permute(2, 0, 1) for (H, W, 3).")
    pixels = pixels.detach().cpu() / 255 if pixels.dtype == torch.uint8 else finite(pixels)
    low, high = pixels.min().item(), pixels.max().item()
    if low < -1e-3 or high > 1 + 1e-3:
        raise InputError(
            "A picture with values in [0, 1].",
            f"values from {low:.3g} to {high:.3g}",
            "the picture before normalisation; `captum_vit.inputs.images.display_image` gives it back.",
        )
    return pixels.float().clamp(0, 1).expand(3, -1, -1)


def plane(relevance: Tensor) -> Tensor:  # shape: (h, w), float32 on the CPU
    """A single map without its leading dimensions of size 1, checked to be finite."""
    relevance = finite(relevance)
    if relevance.dim() < 2 or relevance.shape[:-2].numel() != 1 or relevance.numel() == 0:
        raise InputError(
            "A map of shape (h, w).",
            f"shape {tuple(relevance.shape)}",
            'one map with `output="grid"` or `"pixels"`; `captum_vit.viz.text` for the tokens of a text.',
        )
    return relevance.reshape(relevance.shape[-2:])


def large(picture: Picture) -> Tensor:  # shape: (3, kH, kW)
    """A small picture with each pixel as a k x k square, so that a map over it stays smooth."""
    pixels = pixels_of(picture)
    times = -(-_LARGE // max(pixels.shape))
    return pixels.repeat_interleave(times, 1).repeat_interleave(times, 2)


def spotlight(pixels: Tensor, mask: Tensor) -> np.ndarray:
    """The picture inside the mask, and its pale shadow outside."""
    inside = F.interpolate((plane(mask)[None, None] > 0).float(), size=pixels.shape[1:], mode="nearest")[0]
    return (inside * pixels + (1 - inside) * (0.88 + 0.12 * pixels)).permute(1, 2, 0).numpy()


def solid(relevance: Tensor, wanted: str) -> Tensor:  # shape: (t, h, w), float32 on the CPU
    """A map with one dimension more than a plane, of time or depth, without its leading dimensions of size 1."""
    relevance = finite(relevance)
    if relevance.dim() < 3 or relevance.shape[:-3].numel() != 1 or relevance.numel() == 0:
        hint = 'one map with `output="grid"`; `captum_vit.viz.overlay` for the map of a picture.'
        raise InputError(f"A map of shape {wanted}.", f"shape {tuple(relevance.shape)}", hint)
    return relevance.reshape(relevance.shape[-3:])


def stretched(
    values: Tensor,  # shape: any, finite
) -> Tensor:  # same shape, in [0, 1]
    """Measurements as grey, from the first to the 99th percentile: a few extremes leave the rest its contrast."""
    thin = values.flatten()[:: -(-values.numel() // _MOST)]
    low, high = (torch.quantile(thin, q).item() for q in (0.01, 0.99))
    if high <= low:
        low, high = values.min().item(), values.max().item()
    return ((values - low) / (high - low)).clamp(0, 1) if high > low else torch.full_like(values, 0.5)
