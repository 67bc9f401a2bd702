"""timm's transformers, by class name; timm itself is not imported."""

from __future__ import annotations

from torch import Tensor, nn

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.spec import Spec, register_spec

_PRE_NORM = ("Block", "LayerScaleBlock", "EvaBlock")


def _layer_scale(block: nn.Module) -> Tensor | None:
    """LayerScale is a module ``ls1`` in ViTs and a parameter ``gamma_1`` in EVA and BEiT."""
    return getattr(getattr(block, "ls1", None), "gamma", getattr(block, "gamma_1", None))


@register_spec("timm.VisionTransformer", "timm.Eva", "timm.Beit")
def timm_vit(model: nn.Module) -> Spec:
    """ViT, DeiT, DINOv2, SigLIP and CLIP towers; EVA, EVA-02 and DINOv3; BEiT."""
    block = type(model.blocks[0]).__name__
    if block not in _PRE_NORM:
        raise UnsupportedModelError(
            f"Pre-norm blocks ({', '.join(_PRE_NORM)}) in timm's {type(model).__name__}.",
            f"blocks of class {block}",
            "captum_vit.register_spec with the attribute names of that block.",
        )
    return Spec(
        attn_scale=_layer_scale, attn_extra=("attn.norm", "attn.gate"), family=f"timm {type(model).__name__}"
    )
