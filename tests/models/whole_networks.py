"""Small hierarchical, windowed, video, sound and dense networks, each with a place in its middle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import timm
import torch
import torchvision
import transformers as tf
from torch import Tensor, nn

from captum_vit.trace.run.score import mixed


class Network(NamedTuple):
    """How it is made, the module whose input is the place, what it is given, and the number that is explained."""

    make: Callable[[], nn.Module]
    module: str
    example: Tensor
    score: Callable[[Tensor], Tensor] = mixed


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


IMAGES, LARGE, VIDEOS, SOUNDS = _noise(2, 3, 64, 64), _noise(1, 3, 224, 224), _noise(2, 4, 3, 32, 32), _noise(2, 2000)


def _timm(name: str, module: str, example: Tensor = IMAGES, **options: Any) -> Network:
    return Network(partial(timm.create_model, name, num_classes=5, **options), module, example)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def _hugging_face(
    model: str, config: str, module: str, example: Tensor, score: Callable[[Tensor], Tensor] = mixed, **options: Any
) -> Network:
    def make() -> nn.Module:
        found: nn.Module = getattr(tf, model)(getattr(tf, config)(**options))
        return found

    return Network(make, module, example, score)


_SWIN = {"img_size": 64, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
_TIMM = {
    "timm ViT": _timm("vit_tiny_patch16_224", "blocks.1", img_size=64, depth=3),
    "timm Swin": _timm("swin_tiny_patch4_window7_224", "layers.1", **_SWIN),
    "timm Swin-S3": _timm(
        "swin_s3_tiny_224", "layers.1", img_size=64, embed_dim=24, depths=(2, 2), num_heads=(2, 4), window_size=(4, 4)
    ),
    "timm SwinV2": _timm("swinv2_tiny_window8_256", "layers.1", **_SWIN),
    "timm SwinV2-CR": _timm(
        "swinv2_cr_tiny_224", "stages.1", img_size=64, embed_dim=24, depths=(2, 2), num_heads=(2, 4), window_size=4
    ),
    "timm Hiera": _timm("hiera_tiny_224", "blocks.2", img_size=64, embed_dim=24, num_heads=1, stages=(1, 2, 2, 1)),
    "timm SAM2-Hiera": _timm("sam2_hiera_tiny", "blocks.2"),
    "timm PVTv2": _timm("pvt_v2_b0", "stages.2"),
    "timm PVTv2, linear": _timm("pvt_v2_b2_li", "stages.2", depths=(1, 1, 1, 1)),
    "timm ConvNeXt": _timm("convnext_atto", "stages.2"),
    "timm FastViT": _timm("fastvit_t8", "stages.2"),
    "timm FastViT, mobile CLIP": _timm("fastvit_mci0", "stages.2"),
    "timm EfficientViT-M": _timm("efficientvit_m0", "stages.1", img_size=64),
    "timm TinyViT": _timm("tiny_vit_5m_224", "stages.2"),
    "timm MambaOut": _timm("mambaout_femto", "stages.2"),
    "timm NextViT": _timm("nextvit_small", "stages.2"),
    "timm EfficientFormerV2": _timm("efficientformerv2_s0", "stages.2", LARGE),
    "timm EfficientFormer": _timm("efficientformer_l1", "stages.2", LARGE),
    "timm ConViT": _timm("convit_tiny", "blocks.5", img_size=64),
    "timm MaxViT": _timm("maxvit_pico_rw_256", "stages.2", img_size=64),
    "timm CoAtNet": _timm("coatnet_pico_rw_224", "stages.2", img_size=64),
    "timm ConvNeXt-V2": _timm("convnextv2_atto", "stages.2"),
    "timm MobileViT": _timm("mobilevit_xxs", "stages.3"),
    "timm PoolFormer": _timm("poolformer_s12", "stages.2"),
    "timm ResNetV2": _timm("resnetv2_18", "stages.2"),
    "timm BiT": _timm("resnetv2_50x1_bit", "stages.2"),
    "timm LeViT": _timm("levit_128s", "stages.1", LARGE),
    "timm SAM": _timm(
        "samvit_base_patch16",
        "blocks.1",
        img_size=64,
        embed_dim=48,
        depth=3,
        num_heads=3,
        global_attn_indexes=(2,),
        window_size=2,
        global_pool="avg",
    ),
    "timm XCiT": _timm("xcit_nano_12_p16_224", "blocks.5", depth=6),
    "timm CaiT": _timm("cait_xxs24_224", "blocks.2", img_size=64, depth=4),
    "timm VOLO": _timm("volo_d1_224", "network.2", img_size=64),
    "timm CrossViT": _timm("crossvit_9_240", "blocks.1", _noise(1, 3, 240, 240)),
    "timm EdgeNeXt": _timm("edgenext_xx_small", "stages.2"),
    "timm MViTv2": _timm("mvitv2_tiny", "stages.2", img_size=64),
    "timm MViTv2 with CLS": _timm("mvitv2_small_cls", "stages.2", img_size=64),
    "timm DaViT": _timm(
        "davit_tiny", "stages.2", depths=(1, 1, 1, 1), embed_dims=(16, 32, 64, 64), num_heads=(1, 2, 4, 4)
    ),
    "timm MLP-Mixer": _timm("mixer_s32_224", "blocks.4", img_size=64),
    "timm ResMLP": _timm("resmlp_12_224", "blocks.6", img_size=64),
    "timm NesT": _timm("nest_tiny_jx", "levels.1", img_size=64),
    "timm EfficientViT, linear attention": _timm("efficientvit_b0", "stages.2"),
    "timm Twins": _timm("twins_svt_small", "blocks.2.0", IMAGES, img_size=64),
    "timm Twins-PCPVT": _timm("twins_pcpvt_small", "blocks.2.0", IMAGES, img_size=64),
    "timm RepViT": _timm("repvit_m1", "stages.2"),
    "timm GCViT": _timm("gcvit_xxtiny", "stages.2", LARGE),
    "timm CAFormer": _timm("caformer_s18", "stages.2"),
    "timm MobileNetV4": _timm("mobilenetv4_hybrid_medium", "blocks.3"),
}

_HF_SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
_SEGFORMER = {
    "hidden_sizes": [16, 32, 48, 64],
    "num_attention_heads": [1, 2, 2, 4],
    "depths": [1] * 4,
    "decoder_hidden_size": 32,
}
_SOUND = SMALL | {
    "conv_dim": (16, 16),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 7,
}
_VIDEO = SMALL | {"image_size": 32, "num_frames": 4}


def _pixel(logits: Tensor) -> Tensor:
    return logits[:, 1, 5, 7].sum()


def _frame(logits: Tensor) -> Tensor:
    return logits[:, 3, 2].sum()


_HF = {
    "HF Swin": _hugging_face("SwinForImageClassification", "SwinConfig", "swin.encoder.layers.1", IMAGES, **_HF_SWIN),
    "HF Swinv2": _hugging_face(
        "Swinv2ForImageClassification", "Swinv2Config", "swinv2.encoder.layers.1", IMAGES, **_HF_SWIN
    ),
    "HF PvtV2": _hugging_face(
        "PvtV2ForImageClassification",
        "PvtV2Config",
        "pvt_v2.encoder.layers.2",
        IMAGES,
        hidden_sizes=[16, 32, 50, 64],
        depths=[1] * 4,
    ),
    "HF Hiera": _hugging_face(
        "HieraForImageClassification",
        "HieraConfig",
        "hiera.encoder.stages.1",
        IMAGES,
        image_size=[64, 64],
        embed_dim=24,
        depths=[1, 2, 1, 1],
    ),
    "HF Segformer, class": _hugging_face(
        "SegformerForImageClassification", "SegformerConfig", "segformer.stages.1", IMAGES, **_SEGFORMER
    ),
    "HF Segformer, pixel": _hugging_face(
        "SegformerForSemanticSegmentation", "SegformerConfig", "segformer.stages.1", IMAGES, _pixel, **_SEGFORMER
    ),
    "HF VideoMAE": _hugging_face(
        "VideoMAEForVideoClassification", "VideoMAEConfig", "videomae.encoder.layer.1", VIDEOS, **_VIDEO
    ),
    "HF TimeSformer": _hugging_face(
        "TimesformerForVideoClassification", "TimesformerConfig", "timesformer.encoder.layer.1", VIDEOS, **_VIDEO
    ),
    "HF ViViT": _hugging_face(
        "VivitForVideoClassification", "VivitConfig", "vivit.layers.1", VIDEOS, **_VIDEO, tubelet_size=[2, 16, 16]
    ),
    "HF V-JEPA2": _hugging_face(
        "VJEPA2ForVideoClassification",
        "VJEPA2Config",
        "vjepa2.encoder.layer.1",
        VIDEOS,
        crop_size=32,
        frames_per_clip=4,
        hidden_size=48,
        num_attention_heads=2,
        num_hidden_layers=2,
        pred_hidden_size=48,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        num_pooler_layers=1,
    ),
    "HF AST": _hugging_face(
        "ASTForAudioClassification",
        "ASTConfig",
        "audio_spectrogram_transformer.layers.1",
        _noise(2, 64, 32),
        **SMALL,
        max_length=64,
        num_mel_bins=32,
    ),
    "HF Wav2Vec2, frame": _hugging_face(
        "Wav2Vec2ForCTC", "Wav2Vec2Config", "wav2vec2.encoder.layers.1", SOUNDS, _frame, **_SOUND
    ),
    "HF Wav2Vec2, convolutions": _hugging_face(
        "Wav2Vec2ForCTC", "Wav2Vec2Config", "wav2vec2.feature_extractor.conv_layers.1", SOUNDS, _frame, **_SOUND
    ),
    "HF HuBERT, frame": _hugging_face(
        "HubertForCTC", "HubertConfig", "hubert.encoder.layers.1", SOUNDS, _frame, **_SOUND
    ),
    "HF Whisper encoder": _hugging_face(
        "WhisperForAudioClassification",
        "WhisperConfig",
        "encoder.layers.1",
        _noise(2, 16, 64),
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=48,
        num_mel_bins=16,
        max_source_positions=32,
        classifier_proj_size=16,
    ),
    "HF YOLOS, query": _hugging_face(
        "YolosForObjectDetection",
        "YolosConfig",
        "vit.encoder.layer.1",
        IMAGES,
        **SMALL,
        image_size=[64, 64],
        num_detection_tokens=6,
    ),
    "HF DPT, pixel": _hugging_face(
        "DPTForSemanticSegmentation",
        "DPTConfig",
        "dpt.encoder.layer.1",
        IMAGES,
        _pixel,
        **SMALL | {"num_hidden_layers": 4},
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 16, 16],
        fusion_hidden_size=16,
    ),
    "HF MobileViT": _hugging_face(
        "MobileViTForImageClassification",
        "MobileViTConfig",
        "mobilevit.encoder.layer.3",
        IMAGES,
        hidden_sizes=[24, 32, 40],
        neck_hidden_sizes=[8, 16, 24, 24, 32, 40, 80],
        num_attention_heads=2,
        image_size=64,
    ),
    "HF Focalnet": _hugging_face(
        "FocalNetForImageClassification",
        "FocalNetConfig",
        "focalnet.encoder.stages.1",
        IMAGES,
        image_size=64,
        embed_dim=16,
        depths=[1, 1],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
    ),
}

_TORCHVISION = {
    "torchvision ViT": Network(
        partial(torchvision.models.VisionTransformer, 64, 16, 3, 2, 32, 48, num_classes=5),
        "encoder.layers.encoder_layer_1",
        IMAGES,
    ),
    "torchvision Swin": Network(
        partial(torchvision.models.SwinTransformer, [4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=5),
        "features.3",
        IMAGES,
    ),
    "torchvision SwinV2": Network(partial(torchvision.models.swin_v2_t, num_classes=5), "features.5", IMAGES),
    "torchvision ConvNeXt": Network(partial(torchvision.models.convnext_tiny, num_classes=5), "features.5", IMAGES),
    "torchvision MaxViT": Network(
        partial(torchvision.models.MaxVit, (64, 64), 16, 4, [16, 32], [1, 1], 8, 0.0, num_classes=5), "blocks.1", IMAGES
    ),
}
_HALVED = {  # products of two streams: FocalNet is complete under "libra" alone
    "timm gMLP": _timm("gmlp_ti16_224", "blocks.15", img_size=64),
    "timm FocalNet": _timm("focalnet_tiny_srf", "layers.1"),
    "timm MobileViTv2": _timm("mobilevitv2_050", "stages.3"),
}

NETWORKS = _TIMM | _HF | _TORCHVISION | _HALVED
