"""open_clip's towers, by class name; open_clip itself is not imported."""

from __future__ import annotations

from typing import Any

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.registry import register_spec
from captum_vit.models.spec import Spec, follow


@register_spec("open_clip.VisionTransformer")
def visual(model: Any) -> Spec | None:
    """The ``visual`` of a CLIP; towers that open_clip takes from timm are timm's."""
    return _residual(model, "transformer.resblocks")


@register_spec("open_clip.TextTransformer")
def text(model: Any) -> Spec | None:
    """The ``text`` of a CLIP whose towers are apart."""
    if model.cls_emb is not None:
        raise UnsupportedModelError(
            "A text tower with one token for each word.",
            f"{type(model).__name__} with a CLS token behind the text (CoCa)",
            "a CLIP that reads its texts at their end, or the image side, captum_vit.TextSimilarity.",
        )
    return _residual(model, "transformer.resblocks")


@register_spec("open_clip.Transformer")
def transformer(model: Any) -> Spec | None:
    """The text tower of a plain CLIP, whose embedding and pooling are the CLIP's own."""
    return _residual(model, "resblocks")


def _residual(model: Any, blocks: str) -> Spec | None:
    if type(follow(model, blocks)[0]).__name__ != "ResidualAttentionBlock":
        return None
    return Spec(
        blocks=blocks,
        out_proj="attn.out_proj",
        mid="ln_2",
        attn_scale=lambda block: getattr(block.ls_1, "gamma", None),
        family=f"open_clip {type(model).__name__}",
    )
