"""open_clip's image towers, by class name; open_clip itself is not imported."""

from __future__ import annotations

from typing import Any

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.spec import Spec, register_spec


@register_spec("open_clip.VisionTransformer")
def visual(model: Any) -> Spec:
    """The ``visual`` of a CLIP; towers that open_clip takes from timm are timm's."""
    block = type(model.transformer.resblocks[0]).__name__
    if block != "ResidualAttentionBlock":
        raise UnsupportedModelError(
            "Blocks of class ResidualAttentionBlock in open_clip's VisionTransformer.",
            f"blocks of class {block}",
            "captum_vit.register_spec with the attribute names of that block.",
        )
    return Spec(
        blocks="transformer.resblocks",
        out_proj="attn.out_proj",
        mid="ln_2",
        attn_scale=lambda block: getattr(block.ls_1, "gamma", None),
        family="open_clip VisionTransformer",
    )
