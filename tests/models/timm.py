"""timm's: ViT and its kin, EVA, BEiT, relative positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm.models.beit
import timm.models.deit
import timm.models.eva
import timm.models.vision_transformer
import torch
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn

from tests.models.table import CLASSES, FURTHER, Case, case, image, redrawn

TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": CLASSES}


def timm_case(name: str, of: Callable[..., nn.Module], inputs: Callable[[], Tensor] = image, **kwargs: Any) -> None:
    case(name)(lambda: Case(redrawn(of(**TIMM | kwargs)), inputs()))


def timm_vit(**kwargs: Any) -> nn.Module:
    return timm.models.vision_transformer.VisionTransformer(**kwargs)


timm_case("timm ViT", timm_vit)
timm_case("timm SigLIP", timm_vit, class_token=False, global_pool="map")
timm_case("timm ViT mean", timm_vit, global_pool="avg")
timm_case("timm ViT mean, no CLS", timm_vit, global_pool="avg", class_token=False)
timm_case("timm ViT registers", timm_vit, reg_tokens=4)
timm_case("timm ViT distilled", timm.models.deit.VisionTransformerDistilled)
timm_case("timm ViT LayerScale", timm_vit, init_values=0.1)
timm_case("timm ViT qk-norm", timm_vit, qk_norm=True)
timm_case("timm ViT non-square", timm_vit, lambda: image(32, 48), img_size=(32, 48))
timm_case("timm ViT dynamic size", timm_vit, lambda: image(48, 24), dynamic_img_size=True)
timm_case("timm CLIP ViT", timm_vit, pre_norm=True)
timm_case("timm DeiT-3", timm_vit, no_embed_class=True, init_values=1e-6)
timm_case("timm DINOv2", timm_vit, init_values=1e-5)
timm_case("timm DINOv2 registers", timm_vit, init_values=1e-5, reg_tokens=4, no_embed_class=True)
timm_case("timm EVA", timm.models.eva.Eva)
timm_case(
    "timm EVA-02", timm.models.eva.Eva,
    swiglu_mlp=True, qkv_fused=False, use_rot_pos_emb=True, ref_feat_shape=(4, 4),
)  # fmt: skip
timm_case(
    "timm EVA-02 CLIP", timm.models.eva.Eva,
    swiglu_mlp=True, qkv_fused=False, use_rot_pos_emb=True, ref_feat_shape=(4, 4),
    scale_mlp=True, scale_attn_inner=True, global_pool="token",
)  # fmt: skip
timm_case(
    "timm DINOv3", timm.models.eva.Eva,
    qkv_bias=False, init_values=1e-5, rope_type="dinov3", rope_temperature=100, rope_rotate_half=True,
    use_rot_pos_emb=True, use_abs_pos_emb=False, num_reg_tokens=4, use_fc_norm=False, dynamic_img_size=True,
    global_pool="token",
)  # fmt: skip
timm_case("timm BEiT", timm.models.beit.Beit, use_abs_pos_emb=False, use_rel_pos_bias=True, init_values=0.1)
timm_case("timm ViT average and maximum", timm_vit, global_pool="avgmax")
timm_case("timm ViT attention pooling with CLS", timm_vit, global_pool="map")
timm_case("timm ViT SwiGLU", timm_vit, mlp_layer=timm.layers.SwiGLUPacked, act_layer=nn.SiLU)
timm_case("timm ViT RMSNorm", timm_vit, norm_layer="rmsnorm")
timm_case("timm PE", timm.models.eva.Eva, global_pool="map", use_rot_pos_emb=True, use_pre_transformer_norm=True)
timm_case("timm BEiT CLS", timm.models.beit.Beit, use_shared_rel_pos_bias=True, global_pool="token")
timm_case("timm relative positions", VisionTransformerRelPos)


class Prompted(nn.Module):
    """Classes that every sample brings along, as a further argument of the batch's size."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, pixels: Tensor, prompts: Tensor) -> Tensor:
        return torch.einsum("bd,bkd->bk", self.vit(pixels), prompts)


@case("timm ViT prompted", FURTHER)
def prompted() -> Case:
    vit = redrawn(timm_vit(**TIMM | {"num_classes": 0}))
    return Case(Prompted(vit).eval(), image(), (torch.randn(3, CLASSES, 24),))
