"""Models that embed images and texts in one space: their towers, and what each library calls the way there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.output import scores_of
from captum_vit.models.positions import refuse_too_long

_SHORTER = "shorter texts, or functools.partial(tokenizer, truncation=True, max_length=...) in the tokenizer's place."


def image_tower(model: nn.Module) -> nn.Module:
    """The part that reads images."""
    return _tower(model, "vision_model", "visual")


def text_tower(model: nn.Module) -> nn.Module:
    """The part that reads texts; that of open_clip's plain CLIP is its ``transformer``."""
    return _tower(model, "text_model", "text", "transformer")


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


def tokenized(model: Any, tokenizer: Callable[..., Any], texts: Sequence[str]) -> tuple[Tensor, ...]:
    """Ids (B, T), and a mask where the model wants one, as these models were trained.

    CLIP reads texts as long as its positions, SigLIP only such as are filled up to the length that it was trained
    with, where padding counts as text; open_clip's tokenizers fill up, and cut, by themselves.

    Raises:
        InputError: a text of more tokens than the model has positions.
    """
    device = next(model.parameters()).device
    if not hasattr(model, "get_text_features"):
        return (tokenizer(list(texts)).to(device),)
    encoded = tokenizer(text=list(texts), return_tensors="pt", padding=True)
    refuse_too_long(text_tower(model), encoded["input_ids"], _SHORTER)
    if model.config.model_type.startswith("siglip"):
        length = model.config.text_config.max_position_embeddings
        fill: dict[str, Any] = {"padding": "max_length", "max_length": length, "truncation": True}
        return (tokenizer(text=list(texts), return_tensors="pt", **fill)["input_ids"].to(device),)
    return tuple(encoded[name].to(device) for name in ("input_ids", "attention_mask") if name in encoded)


def words_of(model: Any, ids: Tensor) -> Tensor | None:  # shape: (B, T)
    """Where open_clip's texts end: True up to the end token, which has the highest number. None elsewhere."""
    pooled = getattr(model, "text_pool_type", getattr(getattr(model, "text", None), "pool_type", None))
    if hasattr(model, "get_text_features") or pooled != "argmax":
        return None
    return torch.arange(ids.shape[1], device=ids.device) <= ids.argmax(1, keepdim=True)
