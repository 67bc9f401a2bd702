"""How near an image is to texts, for models that embed both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import InputError, UnsupportedModelError
from captum_vit.models.output import scores_of
from captum_vit.targets.scores import TargetModule, constant


class TextSimilarity(TargetModule):
    """Cosine similarity of an image with each of several texts, for CLIP-like models.

    Explains the image side. The texts are encoded once, so they may be of any number and are safe under
    ``NoiseTunnel``, which would mix up a bank of texts given as arguments.

    Args:
        model: a Hugging Face CLIP or SigLIP model (``get_image_features``), or an open_clip model
            (``encode_image``).
        text_embeddings: (K, D), the texts in the joint space.
    """

    text_embeddings: Tensor

    def __init__(self, model: nn.Module, text_embeddings: Tensor) -> None:
        super().__init__(model, _image_tower(model))
        if not isinstance(text_embeddings, Tensor) or text_embeddings.dim() != 2:
            raise InputError(
                "Text embeddings of shape (K, D).",
                type(text_embeddings).__name__,
                "TextSimilarity.from_texts(model, tokenizer, ['a dog', ...]).",
            )
        self.names: list[str] | None = None
        self.register_buffer("text_embeddings", constant(F.normalize(text_embeddings, dim=-1)))

    @classmethod
    def from_texts(cls, model: Any, tokenizer: Callable[..., Any], texts: list[str]) -> TextSimilarity:
        """Encode the texts with the model's own tokenizer (or processor)."""
        with torch.no_grad():
            if hasattr(model, "get_text_features"):
                tokens = tokenizer(text=texts, return_tensors="pt", padding=True)
                made = cls(model, scores_of(model.get_text_features(**tokens)))
            else:
                made = cls(model, model.encode_text(tokenizer(texts)))
        made.names = list(texts)
        return made

    def forward(self, pixel_values: Tensor) -> Tensor:  # shape: (B, K)
        model: Any = self.model
        encode = getattr(model, "get_image_features", None) or model.encode_image
        image = F.normalize(scores_of(encode(pixel_values)), dim=-1)
        return image @ self.text_embeddings.to(image).T


def _image_tower(model: nn.Module) -> nn.Module:
    tower = getattr(model, "vision_model", getattr(model, "visual", None))
    if not isinstance(tower, nn.Module):
        raise UnsupportedModelError(
            "An image-text model with `vision_model` (Hugging Face) or `visual` (open_clip).",
            type(model).__name__,
            "the full CLIP or SigLIP model, not one of its towers.",
        )
    return tower
