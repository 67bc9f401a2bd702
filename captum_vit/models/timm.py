"""timm's transformers, by class name; timm itself is not imported."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_vit.models.modules import uncompiled
from captum_vit.models.registry import register_spec
from captum_vit.models.spec import Spec

_PRE_NORM = {"Block", "EvaBlock", "RelPosBlock"}
_BRANCH_NORM = {"ResPostBlock", "EvaBlockPostNorm", "ResPostRelPosBlock"}  # x + norm(attn(x))


@register_spec("timm.VisionTransformer", "timm.VisionTransformerRelPos", "timm.Eva", "timm.Beit")
def timm_vit(model: Any) -> Spec | None:
    """ViT, DeiT, DeiT-3, DINOv2, SigLIP and CLIP towers; EVA, EVA-02, PE and DINOv3; BEiT; relative positions.

    Of other blocks than these nothing is known here: they are found by a pass. Per-head vectors cannot be read where a
    norm or a gate follows the merged heads (EVA-02's ``scale_attn_inner``).
    """
    family = f"timm {type(model).__name__}"
    for block in map(uncompiled, model.blocks):
        kinds = {cls.__name__ for cls in type(block).__mro__}
        attention = type(getattr(block, "attn", None)).__name__
        if not kinds & (_PRE_NORM | _BRANCH_NORM) or attention == "DiffAttention":
            return None
        if kinds & _BRANCH_NORM:
            return Spec(out_proj=None, mid="mlp", family=f"{family} ({type(block).__name__})")
    return Spec(attn_scale=_layer_scale, attn_extra=("attn.norm", "attn.gate"), family=family)


def _layer_scale(block: nn.Module) -> Tensor | None:
    """LayerScale is a module ``ls1`` in ViTs and a parameter ``gamma_1`` in EVA and BEiT."""
    return getattr(getattr(block, "ls1", None), "gamma", getattr(block, "gamma_1", None))
