"""Tiny models of every family, with random weights: the table that the exam runs on.

A model is built from its configuration, without a download, and every parameter is drawn anew from a seeded
generator, biases, norms, LayerScale and heads included: what a library initialises with zeros or ones would
hide mistakes. ``CASES`` maps a name to a builder of a :class:`Case`; each is built once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import timm.models.beit
import timm.models.deit
import timm.models.eva
import timm.models.vision_transformer
import torch
import torchvision
import transformers
from torch import Tensor, nn

import captum_vit as cv

CLASSES = 5


class Case(NamedTuple):
    """What a Captum call needs: a batch of three, and a target for each."""

    forward_func: nn.Module
    inputs: Tensor
    additional_forward_args: tuple[Any, ...] = ()
    target: Any = (1, 4, 2)


CASES: dict[str, Callable[[], Case]] = {}
FURTHER: dict[str, Callable[[], Case]] = {}  # no family of their own, but another way of calling one


def case(name: str, table: dict[str, Callable[[], Case]] = CASES) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Enter a builder into the table; its model and inputs depend on the name alone."""

    def enter(build: Callable[[], Case]) -> Callable[[], Case]:
        @cache
        def built() -> Case:
            with torch.random.fork_rng():
                torch.manual_seed(sum(map(ord, name)))
                made = build()
            return made._replace(target=list(made.target))

        table[name] = built
        return built

    return enter


def redrawn(model: nn.Module) -> nn.Module:
    """Every parameter anew: matrices that keep lengths, biases around 0, norms and LayerScale around 1."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            leaf = name.rpartition(".")[2]
            if p.dim() == 0:  # the temperature of CLIP
                continue
            if p.dim() == 1:
                p.normal_(std=0.3).add_(0 if "bias" in leaf else 1)
            elif p.shape[0] == 1:  # positions, CLS token, registers
                p.normal_(std=0.7)
            else:
                p.normal_(std=1.5 * (p.shape[0] / p.numel()) ** 0.5)
    return model.eval()


def image(height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(3, 3, height, width)


# -- timm ------------------------------------------------------------------------------------------------------

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


# -- Hugging Face ----------------------------------------------------------------------------------------------

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
    @case(name)
    def build() -> Case:
        config = getattr(transformers, f"{family}Config")(**SIZES | VOCABULARY | kwargs, num_labels=CLASSES)
        ids, mask = padded()
        return Case(redrawn(getattr(transformers, f"{family}ForSequenceClassification")(config)), ids, (mask,))

    TEXTS.append(name)


TEXTS: list[str] = []
text_case("HF BERT", "Bert")
text_case("HF DistilBERT", "DistilBert", dim=24, n_layers=3, n_heads=3, hidden_dim=48)
text_case("HF DeBERTa-v2", "DebertaV2", conv_kernel_size=3, **DEBERTA)
text_case("HF ModernBERT", "ModernBert", **WINDOW)


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


# -- torchvision -----------------------------------------------------------------------------------------------


@case("torchvision ViT")
def torchvision_vit() -> Case:
    return Case(redrawn(torchvision.models.VisionTransformer(32, 8, 3, 3, 24, 48, num_classes=CLASSES)), image())


# -- what is not supported -------------------------------------------------------------------------------------

READ_HEADS = {"VTranM", "AttIN", "GlobEnc", "ALTI", "PLUS(GlobEnc)", "PLUS(ALTI)"}  # refuse what mixes the heads
STRANGERS: dict[str, Callable[[], nn.Module]] = {
    "Swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(2, 2), num_heads=(2, 2), num_classes=CLASSES
    ),
    "ConvNeXt": lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), num_classes=CLASSES),
    "ConViT": lambda: timm.create_model("convit_tiny", img_size=32, embed_dim=24, depth=3, num_heads=3),
}
SLICE = ("timm ViT", "timm SigLIP", "HF BERT", "HF CLIP")
