"""Hugging Face transformers, by the class of the tower inside; transformers itself is not imported."""

from __future__ import annotations

from typing import Any

from torch import nn

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.registry import register_spec
from captum_vit.models.spec import Spec


def _family(model: nn.Module) -> str:
    return f"Hugging Face {type(model).__name__}"


@register_spec("transformers.ViTModel", "transformers.DeiTModel", "transformers.BeitModel")
def vit(model: nn.Module) -> Spec:
    """ViT, DeiT and BEiT; BEiT scales its branches by ``lambda_1`` and ``lambda_2``."""
    return Spec(
        blocks="layers",
        attn="attention",
        out_proj="attention.o_proj",
        mid="layernorm_after",
        attn_scale=lambda block: getattr(block, "lambda_1", None),
        family=_family(model),
    )


@register_spec("transformers.Dinov2Model", "transformers.Dinov2WithRegistersModel")
def dinov2(model: nn.Module) -> Spec:
    """DINOv2, with and without registers."""
    return Spec(
        blocks="encoder.layer",
        attn="attention",
        out_proj=_dinov2_projection,
        attn_scale="layer_scale1.lambda1",
        family=_family(model),
    )


def _dinov2_projection(block: Any) -> nn.Module:
    """Named ``o_proj``, as everywhere, since transformers 5.18."""
    attention = block.attention
    return attention.o_proj if hasattr(attention, "o_proj") else attention.output.dense


@register_spec("transformers.DINOv3ViTModel")
def dinov3(model: nn.Module) -> Spec:
    """DINOv3; its output is the CLS token, so explain a target module around it."""
    return Spec(
        blocks="model.layer",
        attn="attention",
        out_proj="attention.o_proj",
        attn_scale="layer_scale1.lambda1",
        family=_family(model),
    )


@register_spec("transformers.CLIPVisionTransformer", "transformers.CLIPVisionModel", "transformers.SiglipVisionModel")
@register_spec("transformers.CLIPTextModel", "transformers.SiglipTextModel")
def tower(model: nn.Module) -> Spec:
    """The towers of CLIP and SigLIP. CLIP reads a text, causally, at its end; SigLIP at the last place."""
    return Spec(
        blocks="encoder.layers",
        attn="self_attn",
        out_proj="self_attn.out_proj",
        mid="layer_norm2",
        family=_family(model),
    )


@register_spec("transformers.CLIPModel", "transformers.SiglipModel")
def image_and_text(model: nn.Module) -> Spec:
    """Refused as they are: a target says which tower is explained, and against which texts."""
    raise UnsupportedModelError(
        "A model with one transformer, or a target module that names the tower to explain.",
        f"{type(model).__name__}, with one for images and one for texts",
        "captum_vit.TextSimilarity (its images) or captum_vit.ImageSimilarity (its texts), or a module of yours whose "
        "`tower` is the part to explain.",
    )


@register_spec(
    "transformers.BertModel",
    "transformers.RobertaModel",
    "transformers.XLMRobertaModel",
    "transformers.CamembertModel",
    "transformers.ElectraModel",
)
def bert(model: nn.Module) -> Spec:
    """BERT and its kin: post-norm, so a block ends with its second norm."""
    return Spec(
        blocks="encoder.layer",
        attn="attention.self",
        out_proj="attention.output.dense",
        mid="intermediate",
        first_norm="attention.output.LayerNorm",
        last_norm="output.LayerNorm",
        family=_family(model),
    )


@register_spec("transformers.DistilBertModel")
def distilbert(model: nn.Module) -> Spec:
    """DistilBERT: BERT's block under other names."""
    return Spec(
        blocks="transformer.layer",
        attn="attention",
        out_proj="attention.out_lin",
        mid="ffn",
        first_norm="sa_layer_norm",
        last_norm="output_layer_norm",
        family=_family(model),
    )


@register_spec("transformers.DebertaV2Model")
def deberta_v2(model: nn.Module) -> Spec:
    """DeBERTa-v2 and v3: a convolution may follow the first block."""
    return Spec(
        blocks="encoder.layer",
        attn="attention.self",
        out_proj="attention.output.dense",
        mid="intermediate",
        first_norm="attention.output.LayerNorm",
        last_norm="output.LayerNorm",
        entry="encoder",
        family=_family(model),
    )


@register_spec("transformers.ModernBertModel")
def modernbert(model: nn.Module) -> Spec:
    """ModernBERT: pre-norm, gated units, and sliding windows in most blocks."""
    return Spec(blocks="layers", attn="attn", out_proj="attn.Wo", mid="mlp_norm", family=_family(model))
