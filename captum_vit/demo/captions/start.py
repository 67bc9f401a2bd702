"""Where the vision tower starts: the demo classifier, in the words of CLIP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_vit.demo.digits.scenes import digit_scenes

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from transformers import CLIPVisionModel

LINEAR = {"attn.proj": "self_attn.out_proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
NORMS = {"norm1": "layer_norm1", "norm2": "layer_norm2"}


@torch.no_grad()
def start_from_digits(tower: CLIPVisionModel, vit: VisionTransformer) -> None:
    """Copy a timm ViT into a ``CLIPVisionModel`` of the same size.

    Blocks and final norm agree one to one. The bias of the patches, which CLIP lacks, goes into their positions.
    The norm before the blocks, which timm's ViT lacks, begins with one gain, the mean spread of patches on training
    scenes. That each patch has its own spread is lost there; training has to make up for it.
    """
    place = tower.embeddings
    place.class_embedding.copy_(vit.cls_token[0, 0])
    place.patch_embedding.weight.copy_(vit.patch_embed.proj.weight)
    place.position_embedding.weight.copy_(vit.pos_embed[0])
    place.position_embedding.weight[1:] += vit.patch_embed.proj.bias
    patches = place(digit_scenes(256, (1, 3), "train").images)[:, 1:]
    tower.pre_layrnorm.weight.fill_(patches.std(-1).mean())
    for layer, block in zip(tower.encoder.layers, vit.blocks, strict=True):
        parts = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
        for name, weight, bias in zip("qkv", *parts, strict=True):
            _fill(layer.get_submodule(f"self_attn.{name}_proj"), weight, bias)
        for own, other in (LINEAR | NORMS).items():
            part = block.get_submodule(own)
            _fill(layer.get_submodule(other), part.weight, part.bias)
    _fill(tower.post_layernorm, vit.norm.weight, vit.norm.bias)


def _fill(module: Any, weight: Tensor, bias: Tensor) -> None:
    module.weight.copy_(weight)
    module.bias.copy_(bias)
