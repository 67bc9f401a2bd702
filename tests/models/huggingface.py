"""Hugging Face's, for images, texts and both."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

import captum_vit as cv
from tests.models.table import CLASSES, TEXTS, Case, case, image, redrawn

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 48}
PICTURE = {"image_size": 32, "patch_size": 8}
VOCABULARY = {"vocab_size": 50, "max_position_embeddings": 24}


def hugging_face_case(name: str, family: str, head: str = "ForImageClassification", **kwargs: Any) -> None:
    def build() -> Case:
        config = getattr(transformers, f"{family}Config")(**SIZES, **PICTURE, num_labels=CLASSES, **kwargs)
        return Case(redrawn(getattr(transformers, family + head)(config)), image())

    case(name)(build)


hugging_face_case("HF ViT", "ViT")
hugging_face_case("HF DeiT", "DeiT")
hugging_face_case("HF DeiT teacher", "DeiT", "ForImageClassificationWithTeacher")
hugging_face_case("HF BEiT", "Beit", use_relative_position_bias=True)
hugging_face_case("HF BEiT CLS", "Beit", use_mean_pooling=False, use_absolute_position_embeddings=True)
hugging_face_case("HF DINOv2", "Dinov2", mlp_ratio=2)
hugging_face_case("HF DINOv2 registers", "Dinov2WithRegisters", mlp_ratio=2, num_register_tokens=4)


def vision_case(name: str, family: str) -> None:
    """Families whose configuration holds one for each tower."""

    def build() -> Case:
        config = getattr(transformers, f"{family}Config")(vision_config=SIZES | PICTURE)
        config.num_labels = CLASSES
        return Case(redrawn(getattr(transformers, f"{family}ForImageClassification")(config)), image())

    case(name)(build)


vision_case("HF SigLIP", "Siglip")
vision_case("HF CLIP classifier", "CLIP")


@case("HF DINOv3")
def dinov3() -> Case:
    """A tower without a head: its output is the CLS token."""
    config = transformers.DINOv3ViTConfig(**SIZES, **PICTURE, num_register_tokens=2)
    return Case(redrawn(transformers.DINOv3ViTModel(config)), image())


def clip_model() -> nn.Module:
    vision = transformers.CLIPVisionConfig(**SIZES, **PICTURE).to_dict()
    numbers = {"pad_token_id": 0, "bos_token_id": 48, "eos_token_id": 49}
    text = transformers.CLIPTextConfig(**SIZES | VOCABULARY, **numbers).to_dict()
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return redrawn(transformers.CLIPModel(config))


@case("HF CLIP")
def clip() -> Case:
    """More texts than images in a batch: a bank of them must never be mixed up with the batch."""
    return Case(cv.TextSimilarity(clip_model(), torch.randn(CLASSES, 16)), image())


DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 4, "share_att_key": True}
WINDOW = {
    "layer_types": ["full_attention", "sliding_attention", "full_attention"], "local_attention": 4,
    "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def padded() -> tuple[Tensor, Tensor]:
    """Ids and mask of a padded batch."""
    mask = (torch.arange(9) < torch.tensor([[9], [6], [4]])).long()
    return torch.randint(3, 50, (3, 9)) * mask, mask


def text_case(name: str, family: str, **kwargs: Any) -> None:
    """A family may number its padding otherwise than by 0."""

    @case(name)
    def build() -> Case:
        config = getattr(transformers, f"{family}Config")(**SIZES | VOCABULARY | kwargs, num_labels=CLASSES)
        ids, mask = padded()
        ids = torch.where(mask.bool(), ids, config.pad_token_id)
        return Case(redrawn(getattr(transformers, f"{family}ForSequenceClassification")(config)), ids, (mask,))

    TEXTS.append(name)


text_case("HF BERT", "Bert")
text_case("HF DistilBERT", "DistilBert", dim=24, n_layers=3, n_heads=3, hidden_dim=48)
text_case("HF DeBERTa-v2", "DebertaV2", conv_kernel_size=3, **DEBERTA)
text_case("HF DeBERTa-v3", "DebertaV2", norm_rel_ebd="layer_norm", **DEBERTA, position_biased_input=False)
text_case("HF Electra", "Electra", embedding_size=16)
text_case("HF ModernBERT", "ModernBert", **WINDOW)
text_case("HF Roberta", "Roberta")


def captions() -> tuple[Tensor, Tensor]:
    """As :func:`padded`, with CLIP's last word where each text ends."""
    ids, mask = padded()
    ids = ids.clamp(max=47)
    ids[torch.arange(3), mask.sum(1) - 1] = 49
    return ids, mask


@case("HF CLIP words")
def clip_words() -> Case:
    """The text side: causal, and read at the end of each text."""
    ids, mask = captions()
    return Case(cv.ImageSimilarity(clip_model(), torch.randn(CLASSES, 16)), ids, (mask,))


TEXTS.append("HF CLIP words")
