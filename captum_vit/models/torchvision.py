"""torchvision's VisionTransformer, by class name; torchvision itself is not imported."""

from __future__ import annotations

from captum_vit.models.registry import register_spec
from captum_vit.models.spec import Spec

register_spec(
    "torchvision.VisionTransformer",
    spec=Spec(
        blocks="encoder.layers",
        attn="self_attention",
        out_proj="self_attention.out_proj",
        mid="ln_2",
        family="torchvision VisionTransformer",
    ),
)
