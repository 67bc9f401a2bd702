"""Further relatives of the models in ``tests.models``, and what is known of each: prefix and pooling."""

from collections.abc import Callable
from typing import Any

import open_clip.model
import timm
import torch
import torchvision
import transformers
from timm.models import vision_transformer
from timm.models.vision_transformer_relpos import ResPostRelPosBlock, VisionTransformerRelPos

import captum_vit as cv
from tests.models import (
    CLASSES,
    PICTURE,
    SIZES,
    STRANGERS,
    TEXTS,
    TIMM,
    VOCABULARY,
    WINDOW,
    Case,
    captions,
    clip_model,
    image,
    open_clip_model,
    padded,
    redrawn,
    timm_vit,
)

MORE: dict[str, Callable[[], Case]] = {}


def _timm(name: str, of: Callable[..., torch.nn.Module] = timm_vit, **kwargs: Any) -> None:
    MORE[name] = lambda: Case(redrawn(of(**TIMM | kwargs)), image())


_timm("timm ViT registers, mean", global_pool="avg", reg_tokens=3, class_token=False)
_timm("timm CLIP QuickGELU", pre_norm=True, act_layer="quick_gelu")
_timm("timm ViT written-out norm", norm_layer="simplenorm")
_timm("timm ViT norm after heads", scale_attn_norm=True, scale_mlp_norm=True)
_timm("timm ViT branch norm", block_fn=vision_transformer.ResPostBlock)
_timm("timm EVA branch norm", timm.models.eva.Eva, use_post_norm=True)
_timm("timm relative positions, branch norm", VisionTransformerRelPos, block_fn=ResPostRelPosBlock)


def _bare(name: str, family: str, **kwargs: Any) -> None:
    """A Hugging Face tower without a head: its output is the CLS token."""

    def build() -> Case:
        config = getattr(transformers, f"{family}Config")(**SIZES, **PICTURE, **kwargs)
        return Case(redrawn(getattr(transformers, f"{family}Model")(config)), image())

    MORE[name] = build


_bare("HF DINOv3 gated", "DINOv3ViT", use_gated_mlp=True, hidden_act="silu")
_bare("HF DINOv2 tower", "Dinov2", use_swiglu_ffn=True)


WINDOWS = ["full_attention", "sliding_attention", "sliding_attention"]


def _text(name: str, family: str, **kwargs: Any) -> None:
    def build() -> Case:
        config = getattr(transformers, f"{family}Config")(**SIZES | VOCABULARY | kwargs, num_labels=CLASSES)
        model = redrawn(getattr(transformers, f"{family}ForSequenceClassification")(config))
        ids, mask = padded()
        return Case(model, torch.where(mask.bool(), ids, config.pad_token_id), (mask,))

    MORE[name] = build


for family in ("XLMRoberta", "Camembert"):
    _text(f"HF {family}", family)
_text("HF ModernBERT mean", "ModernBert", classifier_pooling="mean", **WINDOW | {"layer_types": WINDOWS})


def _siglip() -> torch.nn.Module:
    numbers = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 1}
    config = transformers.SiglipConfig(vision_config=SIZES | PICTURE, text_config=SIZES | VOCABULARY | numbers)
    return redrawn(transformers.SiglipModel(config))


def _siglip_texts() -> Case:
    return Case(cv.TextSimilarity(_siglip(), torch.randn(CLASSES, 24)), image())


def _siglip_words() -> Case:
    """Padding is text to it."""
    return Case(cv.ImageSimilarity(_siglip(), torch.randn(CLASSES, 24)), padded()[0])


def _clip_projection() -> Case:
    config = transformers.CLIPVisionConfig(**SIZES, **PICTURE, projection_dim=CLASSES)
    return Case(redrawn(transformers.CLIPVisionModelWithProjection(config)), image())


def _open_clip_words(of: type[torch.nn.Module] = open_clip.model.CLIP) -> Case:
    return Case(cv.ImageSimilarity(open_clip_model(of), torch.randn(CLASSES, 16)), captions()[0])


MORE |= {
    "HF SigLIP texts": _siglip_texts,
    "HF SigLIP words": _siglip_words,
    "HF CLIP projection": _clip_projection,
    "open_clip words": _open_clip_words,
    "open_clip words, towers apart": lambda: _open_clip_words(open_clip.model.CustomTextCLIP),
}

# Prefix tokens, and what the head reads. The others have one prefix token, CLS, and read it.
KNOWN: dict[str, tuple[int, str]] = {
    "timm SigLIP": (0, "attention"),
    "timm ViT mean": (1, "patches"),
    "timm ViT mean, no CLS": (0, "patches"),
    "timm ViT registers": (5, "CLS"),
    "timm ViT distilled": (2, "pair"),
    "timm DINOv2 registers": (5, "CLS"),
    "timm EVA": (1, "patches"),
    "timm EVA-02": (1, "patches"),
    "timm DINOv3": (5, "CLS"),
    "timm BEiT": (1, "patches"),
    "timm ViT average and maximum": (1, "some patches"),
    "timm ViT registers, mean": (3, "patches"),
    "timm ViT attention pooling with CLS": (1, "attention"),
    "timm EVA branch norm": (1, "patches"),
    "timm PE": (1, "attention"),
    "timm relative positions": (0, "patches"),
    "timm relative positions, branch norm": (0, "patches"),
    "HF DeiT": (2, "CLS"),
    "HF DeiT teacher": (2, "pair"),
    "HF BEiT": (1, "patches"),
    "HF DINOv2": (1, "CLS and mean"),
    "HF DINOv2 registers": (5, "CLS and mean"),
    "HF DINOv3": (3, "CLS"),
    "HF SigLIP": (0, "patches"),
    "HF CLIP classifier": (1, "patches"),
    "HF SigLIP texts": (0, "attention"),
    **{name: (0, "CLS") for name in TEXTS},
    **{f"HF {family}": (0, "CLS") for family in ("XLMRoberta", "Camembert")},
    "HF ModernBERT mean": (0, "words"),
    "HF SigLIP words": (0, "last"),
    **{name: (0, "end") for name in ("HF CLIP words", "open_clip words", "open_clip words, towers apart")},
}
GRIDS = {"timm ViT non-square": (4, 6), "timm ViT dynamic size": (6, 3)}
NO_HEAD_VECTORS = {
    "timm EVA-02 CLIP",
    "timm ViT norm after heads",
    "timm ViT branch norm",
    "timm EVA branch norm",
    "timm relative positions, branch norm",
}

# -- what is not supported, and says so ------------------------------------------------------------------------

SMALL = {"depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": CLASSES}


def _diff(**kwargs: Any) -> torch.nn.Module:
    """Differential attention halves each head."""
    return timm_vit(**TIMM | {"embed_dim": 48}, **kwargs)


UNSUPPORTED: dict[str, Callable[[], torch.nn.Module]] = STRANGERS | {
    "CaiT": lambda: timm.create_model("cait_xxs24_224", img_size=32, patch_size=8, **SMALL),
    "XCiT": lambda: timm.create_model("xcit_nano_12_p16_224", img_size=32, **SMALL),
    "PiT": lambda: timm.create_model(
        "pit_ti_224", img_size=32, depth=(1, 1), base_dims=(32, 32), heads=(2, 2), num_classes=CLASSES
    ),
    "ParallelThingsBlock": lambda: timm_vit(**TIMM, block_fn=vision_transformer.ParallelThingsBlock),
    "DiffParallelScalingBlock": lambda: _diff(block_fn=vision_transformer.DiffParallelScalingBlock),
    "DiffAttention": lambda: _diff(attn_layer="diff"),
    "HF Swin": lambda: transformers.SwinModel(
        transformers.SwinConfig(image_size=32, embed_dim=12, window_size=4, depths=[1, 1], num_heads=[3, 3])
    ),
    "HF CLIP as it is": clip_model,
    "HF SigLIP as it is": _siglip,
    "torchvision Swin": lambda: torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [2, 2], [7, 7]),
}
