"""Hugging Face's dense models, each behind the target module of one place, and encoders whose features are averaged."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as tf
from torch import Tensor, nn

import captum_vit as cv
from tests.families.shrink import CLASSES, HEADS
from tests.families.weights import redrawn
from tests.models import Case

SIDE, WIDTH = 64, 32
SMALL = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 64}
TRUNK = {"hidden_sizes": [16, 16, 24, 32], "depths": [1] * 4, "layer_type": "basic", "embedding_size": 16}
DINO = {"hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": HEADS, "patch_size": 8, "image_size": SIDE}
BOXES = {
    "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 5,
}  # fmt: skip


class Averaged(nn.Module):
    """Scores of an image from the mean of the features that an encoder gives."""

    def __init__(self, encoder: nn.Module, width: int, channels_first: bool = False) -> None:
        super().__init__()
        self.encoder, self.head, self.channels_first = encoder, nn.Linear(width, CLASSES), channels_first

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(images).last_hidden_state
        features = features.movedim(1, -1) if self.channels_first else features
        return self.head(features.flatten(1, -2).mean(1))


def dpt() -> nn.Module:
    config = tf.DPTConfig(
        **SMALL | {"num_hidden_layers": 4}, image_size=SIDE, num_labels=CLASSES, is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16] * 4, fusion_hidden_size=16, use_auxiliary_head=False,
    )  # fmt: skip
    return cv.Pixel(tf.DPTForSemanticSegmentation(config), (20, 30))


def depth_anything() -> nn.Module:
    backbone = tf.Dinov2Config(**DINO, out_indices=[1, 2, 3, 4], reshape_hidden_states=False)
    config = tf.DepthAnythingConfig(
        backbone_config=backbone, patch_size=8, reassemble_hidden_size=WIDTH, neck_hidden_sizes=[16] * 4,
        fusion_hidden_size=16, head_hidden_size=16, reassemble_factors=[4, 2, 1, 0.5],
    )  # fmt: skip
    return cv.Pixel(tf.DepthAnythingForDepthEstimation(config), (20, 30))


def segformer() -> nn.Module:
    sizes = {"hidden_sizes": [16, 16, 24, 32], "num_attention_heads": [1, 2, 2, 4], "depths": [1] * 4}
    config = tf.SegformerConfig(**sizes, decoder_hidden_size=16, num_labels=CLASSES)
    return cv.Pixel(tf.SegformerForSemanticSegmentation(config), (5, 7))


def detr() -> nn.Module:
    trunk = tf.ResNetConfig(**TRUNK, out_features=["stage4"])
    config = tf.DetrConfig(**BOXES, num_labels=CLASSES, backbone_config=trunk, use_timm_backbone=False, backbone=None)
    return cv.Query(tf.DetrForObjectDetection(config), 2)


def yolos() -> nn.Module:
    config = tf.YolosConfig(**SMALL, image_size=[SIDE, SIDE], num_detection_tokens=5, num_labels=CLASSES)
    return cv.Query(tf.YolosForObjectDetection(config), 2)


def mask2former() -> nn.Module:
    swin = tf.SwinConfig(
        image_size=SIDE, embed_dim=16, depths=[1] * 4, num_heads=[2] * 4, window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = tf.Mask2FormerConfig(
        backbone_config=swin, feature_size=WIDTH, mask_feature_size=WIDTH, hidden_dim=WIDTH, encoder_layers=1,
        encoder_feedforward_dim=32, dim_feedforward=32, decoder_layers=2, num_attention_heads=HEADS, num_queries=5,
        num_labels=CLASSES,
    )  # fmt: skip
    return cv.Query(tf.Mask2FormerForUniversalSegmentation(config), 2, output="class_queries_logits")


def sam() -> nn.Module:
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": HEADS, "output_channels": 16}
    config = tf.SamVisionConfig(**sizes, image_size=SIDE, patch_size=8, window_size=4, global_attn_indexes=[1])
    return Averaged(tf.SamVisionModel(config), 16, channels_first=True)


def sam2() -> nn.Module:
    trunk = tf.Sam2HieraDetConfig(
        hidden_size=16, image_size=[128, 128], num_attention_heads=1, blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128], num_attention_heads_per_stage=[1, 2, 4, 8],
        global_attention_blocks=[3], window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    config = tf.Sam2VisionConfig(backbone_config=trunk, backbone_channel_list=[128, 64, 32, 16], fpn_hidden_size=16)
    return Averaged(tf.Sam2VisionModel(config), 128)


def vit_mae() -> nn.Module:
    return Averaged(tf.ViTMAEModel(tf.ViTMAEConfig(**SMALL, image_size=SIDE, mask_ratio=0.0)), WIDTH)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "DPT, pixel": dpt,
    "Depth Anything, pixel": depth_anything,
    "Segformer, pixel": segformer,
    "DETR, query": detr,
    "YOLOS, query": yolos,
    "Mask2Former, query": mask2former,
    "SAM encoder": sam,
    "SAM 2 encoder": sam2,
    "ViTMAE encoder": vit_mae,
}
SIDES = {"SAM 2 encoder": 128}


def names() -> list[str]:
    return list(MODELS)


def build(name: str) -> Case:
    side = SIDES.get(name, SIDE)
    model = redrawn(MODELS[name]())
    if name.startswith(
        ("DPT", "Depth")
    ):  # scores that no softmax saturates, and depths above the 0 of the ReLU that makes them
        last = [m for m in model.modules() if isinstance(m, nn.Conv2d)][-1]
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.add_(20 if name.startswith("Depth") else 0)
    return Case(model, torch.randn(3, 3, side, side))
