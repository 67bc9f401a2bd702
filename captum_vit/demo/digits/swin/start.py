"""Where the Swin starts: the demo classifier, as far as the two have the same parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from captum_vit.demo.digits.scenes import digit_scenes

if TYPE_CHECKING:
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer


@torch.no_grad()
def start_from_vit(swin: SwinTransformer, vit: VisionTransformer) -> None:
    """Copy patches and first blocks of a timm ViT into the first stage of a ``SwinTransformer`` of the same width.

    The mean of the ViT's positions goes into the bias of the patches. The norm behind the patches, which the ViT lacks,
    begins with one gain, the mean spread of patches on training scenes. Relative positions, the second stage and the
    classifier keep the weights that they have.
    """
    patches = swin.patch_embed
    patches.proj.weight.copy_(vit.patch_embed.proj.weight)
    patches.proj.bias.copy_(vit.patch_embed.proj.bias + vit.pos_embed[0, 1:].mean(0))
    patches.norm.weight.fill_(patches.proj(digit_scenes(256, (1, 3), "train").images).std(1).mean())
    first = swin.layers[0].blocks
    for block, earlier in zip(first, vit.blocks[: len(first)], strict=True):
        block.load_state_dict(block.state_dict() | earlier.state_dict())  # all but the relative positions
