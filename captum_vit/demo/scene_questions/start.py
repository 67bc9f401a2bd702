"""Where the vision tower starts: the demo classifier, in the words of transformers' ViT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from transformers import ViTModel

KEPT = 4  # first layers of the tower that are not trained
PARTS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


@torch.no_grad()
def start_from_digits(tower: ViTModel, vit: VisionTransformer) -> None:
    """Copy a timm ViT into transformers' ViT of the same size; all agrees one to one."""
    place = tower.embeddings
    place.cls_token.copy_(vit.cls_token)
    place.position_embeddings.copy_(vit.pos_embed)
    _fill(place.patch_embeddings.projection, vit.patch_embed.proj.weight, vit.patch_embed.proj.bias)
    for layer, block in zip(tower.layers, vit.blocks, strict=True):
        parts = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
        for name, weight, bias in zip("qkv", *parts, strict=True):
            _fill(layer.get_submodule(f"attention.{name}_proj"), weight, bias)
        for other, own in PARTS.items():
            part = block.get_submodule(other)
            _fill(layer.get_submodule(own), part.weight, part.bias)
    _fill(tower.layernorm, vit.norm.weight, vit.norm.bias)


def _fill(module: Any, weight: Tensor, bias: Tensor) -> None:
    module.weight.copy_(weight)
    module.bias.copy_(bias)
