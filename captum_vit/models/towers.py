"""Models that embed images and texts in one space: their towers, and the functions of each library that embed."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.modules import uncompiled, unwrapped
from captum_vit.models.output import scores_of


def image_tower(model: nn.Module) -> nn.Module:
    """The part that reads images."""
    return _tower(model, "vision_model", "visual")


def text_tower(model: nn.Module) -> nn.Module:
    """The part that reads texts; that of open_clip's plain CLIP is its ``transformer``."""
    return _tower(model, "text_model", "text", "transformer")


def refuse_both(model: nn.Module) -> None:
    """A model that embeds images and texts is explained by a target module, which says what it is set against.

    Raises:
        UnsupportedModelError: it is such a model itself.
    """
    pairs = (("get_image_features", "get_text_features"), ("encode_image", "encode_text"))
    inner = uncompiled(unwrapped(model))
    if any(all(hasattr(inner, name) for name in pair) for pair in pairs):
        raise UnsupportedModelError(
            "A model with one transformer, or a target module that names the tower to explain.",
            f"{type(inner).__name__}, which embeds images and texts",
            "captum_vit.TextSimilarity (its images) or captum_vit.ImageSimilarity (its texts), or a module of yours "
            "whose `tower` is the part to explain.",
        )


def _tower(model: nn.Module, *names: str) -> nn.Module:
    for name in names:
        tower = getattr(model, name, None)
        if isinstance(tower, nn.Module):
            return tower
    raise UnsupportedModelError(
        f"An image-text model of Hugging Face or open_clip, with {' or '.join(f'`{name}`' for name in names)}.",
        type(model).__name__,
        "the full CLIP or SigLIP model, not one of its towers.",
    )


def embed_images(model: Any, pixels: Tensor) -> Tensor:  # shape: (B, D)
    """Images in the joint space."""
    encode = getattr(model, "get_image_features", None) or model.encode_image
    return scores_of(encode(pixels))


def embed_texts(model: Any, ids: Tensor, *args: Any) -> Tensor:  # shape: (B, D)
    """Texts in the joint space; Hugging Face takes an attention mask as the second argument."""
    encode = getattr(model, "get_text_features", None) or model.encode_text
    return scores_of(encode(ids, *args))
