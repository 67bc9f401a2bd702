"""Specs by hand of the families that the exam runs on: what a pass finds is compared with these names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import captum_vit as cv
from captum_vit.models.modules import uncompiled
from captum_vit.models.registry import Describe

BERT = cv.Spec(
    "encoder.layer", "attention.self", "attention.output.dense", "intermediate",
    first_norm="attention.output.LayerNorm", last_norm="output.LayerNorm", family="Hugging Face BertModel",
)  # fmt: skip
VIT = cv.Spec(
    "layers", "attention", "attention.o_proj", "layernorm_after", lambda block: getattr(block, "lambda_1", None)
)
CLIP = cv.Spec("encoder.layers", "self_attn", "self_attn.out_proj", "layer_norm2")
DINO = cv.Spec("model.layer", "attention", "attention.o_proj", attn_scale="layer_scale1.lambda1")
OPEN_CLIP = cv.Spec(
    "resblocks", "attn", "attn.out_proj", "ln_2", attn_scale=lambda block: getattr(block.ls_1, "gamma", None)
)


def timm(model: Any) -> cv.Spec:
    """LayerScale is a module ``ls1`` in ViTs and a parameter ``gamma_1`` in EVA and BEiT."""
    kinds = {cls.__name__ for block in map(uncompiled, model.blocks) for cls in type(block).__mro__}
    if kinds & {"ResPostBlock", "EvaBlockPostNorm", "ResPostRelPosBlock"}:  # x + norm(attn(x))
        return cv.Spec(out_proj=None, mid="mlp", family=f"timm {type(model).__name__}")
    return cv.Spec(
        attn_scale=lambda block: getattr(getattr(block, "ls1", None), "gamma", getattr(block, "gamma_1", None)),
        attn_extra=("attn.norm", "attn.gate"),
        family=f"timm {type(model).__name__}",
    )


def _hugging_face() -> dict[str, Describe]:
    distilled = cv.Spec(
        "transformer.layer", "attention", "attention.out_lin", "ffn",
        first_norm="sa_layer_norm", last_norm="output_layer_norm",
    )  # fmt: skip
    found = {
        **dict.fromkeys(("ViTModel", "DeiTModel", "BeitModel"), VIT),
        **dict.fromkeys(("Dinov2Model", "Dinov2WithRegistersModel"), replace(DINO, blocks="encoder.layer")),
        "DINOv3ViTModel": DINO,
        **dict.fromkeys(("CLIPVisionTransformer", "CLIPVisionModel", "SiglipVisionModel"), CLIP),
        **dict.fromkeys(("CLIPTextModel", "SiglipTextModel"), CLIP),
        **dict.fromkeys(("BertModel", "RobertaModel", "XLMRobertaModel", "CamembertModel", "ElectraModel"), BERT),
        "DistilBertModel": distilled,
        "DebertaV2Model": replace(BERT, entry="encoder"),
        "ModernBertModel": cv.Spec("layers", "attn", "attn.Wo", "mlp_norm"),
    }
    return {f"transformers.{name}": replace(spec, family=f"Hugging Face {name}") for name, spec in found.items()}


SPECS: dict[str, Describe] = {
    **_hugging_face(),
    **dict.fromkeys((f"timm.{name}" for name in ("VisionTransformer", "VisionTransformerRelPos", "Eva", "Beit")), timm),
    "torchvision.VisionTransformer": cv.Spec(
        "encoder.layers", "self_attention", "self_attention.out_proj", "ln_2", family="torchvision VisionTransformer"
    ),
    **{
        f"open_clip.{name}": replace(OPEN_CLIP, blocks=f"transformer.{OPEN_CLIP.blocks}", family=f"open_clip {name}")
        for name in ("VisionTransformer", "TextTransformer")
    },
    "open_clip.Transformer": replace(OPEN_CLIP, family="open_clip Transformer"),
}
