"""Every class of transformers that classifies texts, tokens, images, sounds or videos, with random weights."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from tests.families.shrink import HEADS, PATCH, SIDE, TOKENS, WIDTH, WORDS, small
from tests.families.weights import redrawn
from tests.models import Case

KINDS = tuple(f"For{what}Classification" for what in ("Sequence", "Token", "Image", "Audio", "Video"))
LENGTHS = (9, 6, 4)  # of the texts of a batch
SAMPLES = 400  # of a sound

STAGES = {"patch_size": 2, "window_size": 4, "depths": [1, 1, 1], "num_heads": [HEADS] * 3}
LAYERED = {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2}
LAYERED |= {"attention_hidden_size": 64, "attention_head_dim": 16}
ROPE = {"rope_type": "default", "rope_theta": 1e4}
TINY_VIT = {"img_size": 2 * SIDE, "patch_size": 2 * PATCH, "embed_dim": 24, "depth": 2, "num_heads": 3}
WAVES = {"conv_dim": (16,) * 3, "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2)}
WAVES |= {"tdnn_dim": (32, 32), "tdnn_kernel": (3, 3), "tdnn_dilation": (1, 1), "num_conv_pos_embedding_groups": 4}

# What a family needs beside sizes.
OF_ITS_OWN: dict[str, dict[str, Any]] = {
    "AST": {"frequency_stride": PATCH, "time_stride": PATCH},
    "Bit": {"num_groups": 8},
    "CohereCompassText": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "ConvNext": {"image_size": 64, "patch_size": 2},
    "ConvNextV2": {"image_size": 64, "patch_size": 2},
    "Cvt": {"depth": [3, 3, 3]},
    "DonutSwin": STAGES,
    "GPTNeo": {"attention_types": [[["global", "local"], 1]]},
    "Jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "use_mamba_kernels": False},
    "LayoutLMv3": {"coordinate_size": 5, "shape_size": 6},
    "Levit": {"image_size": 64, "patch_size": 16},
    "Lilt": {"hidden_size": 48},
    "MobileBert": {"intra_bottleneck_size": 16, "true_hidden_size": 16, "normalization_type": "layer_norm"},
    "MobileViT": {"image_size": 64, "patch_size": 2},
    "MobileViTV2": {"image_size": 64, "patch_size": 2},
    "Perceiver": {"num_latents": 8, "d_latents": 32, "num_self_attends_per_block": 2},
    "Reformer": {"axial_pos_shape": (8, 8), "axial_pos_embds_dim": (16, 16), "attn_layers": ("local", "lsh")},
    "ShieldGemma2": {"yes_token_index": 10, "no_token_index": 11},
    "Swin": STAGES,
    "Swinv2": STAGES,
    "T5": {"decoder_start_token_id": 0},
    "TimmWrapper": {"architecture": "vit_tiny_patch16_224", "model_args": TINY_VIT},
    "Vivit": {"tubelet_size": (2, PATCH, PATCH)},
    "Xmod": {"default_language": "en_XX", "languages": ("en_XX",)},
    "Zamba": LAYERED,
    "Zamba2": LAYERED | {"mamba_headdim": 8},
}
for of in ("Bros", "BrosSpadeEE", "BrosSpadeEL"):
    OF_ITS_OWN[of] = {"hidden_size": 64}
for of in ("Esmc", "AXK2", "MiniCPM3", "Mistral4"):
    OF_ITS_OWN[of] = {"num_key_value_heads": HEADS}
for of in ("AXK1", "DeepseekV2", "DeepseekV3"):
    OF_ITS_OWN[of] = {"num_key_value_heads": HEADS, "head_dim": WIDTH // HEADS // 2, "num_experts_per_tok": 2}
for of in (
    "Data2VecAudio",
    "Hubert",
    "SEW",
    "SEWD",
    "UniSpeech",
    "UniSpeechSat",
    "Wav2Vec2",
    "Wav2Vec2Conformer",
    "WavLM",
):
    OF_ITS_OWN[of] = WAVES
CONVOLUTIONS: dict[str, dict[str, Any]] = {  # as they are: their widths depend on one another
    "EfficientNet": {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280},
    "HGNetV2": {},
    "TextNet": {},
}


def names() -> list[str]:
    """Those of the installed version, without those that choose a class or collate data."""
    return sorted(n for n in dir(transformers) if n.endswith(KINDS) and not n.startswith(("AutoModel", "DataCollator")))


def build(name: str) -> Case:
    """A model of the class, and a batch of three."""
    of = getattr(transformers, name)
    family = name.partition("For")[0]
    plain = CONVOLUTIONS.get(family)
    config = of.config_class(**plain) if plain is not None else small(of.config_class, OF_ITS_OWN.get(family, {}))
    model = redrawn(of(config))
    inputs = INPUTS[model.main_input_name](config, name)
    given = further(model, inputs, config)
    return Case(model, inputs, given)


# -- what a model reads ----------------------------------------------------------------------------------------


def words(config: Any, name: str) -> Tensor:
    """Ids of three texts, each with the token that ends a text; what is behind them is padding."""
    ids = torch.randint(len(TOKENS), WORDS, (3, max(LENGTHS)))
    ids[range(3), [length - 1 for length in LENGTHS]] = TOKENS.index("eos_token_id")
    return ids * real()


def real() -> Tensor:
    """The mask of the three texts."""
    return (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)).long()


def pictures(config: Any, name: str) -> Tensor:
    """Images; of a class for videos, frames of them."""
    config = getattr(config, "vision_config", config)
    if name.startswith("Siglip2"):
        return torch.randn(3, 16, 3 * config.patch_size**2)
    side = getattr(config, "crop_size", getattr(config, "image_size", 2 * SIDE))
    side = 2 * SIDE if name.startswith(tuple(CONVOLUTIONS)) else side if isinstance(side, int) else side[0]
    frames = getattr(config, "frames_per_clip", getattr(config, "num_frames", 4))
    return torch.randn(3, *([frames] if "ForVideo" in name else []), 3, side, side)


def sounds(config: Any, name: str) -> Tensor:
    """Waves, or a spectrogram: time before frequency."""
    return torch.randn(3, config.max_length, config.num_mel_bins) if name.startswith("AST") else torch.randn(3, SAMPLES)


def features(config: Any, name: str) -> Tensor:
    """Features of frames: frequency before time in Whisper."""
    if name.startswith("Whisper"):
        return torch.randn(3, config.num_mel_bins, 2 * config.max_source_positions)
    return torch.randn(3, 12, config.feature_projection_input_dim)


INPUTS = {
    "input_ids": words,
    "inputs": words,
    "pixel_values": pictures,
    "pixel_values_videos": pictures,
    "input_values": sounds,
    "input_features": features,
}


def further(model: nn.Module, inputs: Tensor, config: Any) -> tuple[Any, ...]:
    """Arguments behind the first, by position: up to the mask of texts, or up to the last one that is needed."""
    given: dict[str, Any] = {}
    if not inputs.is_floating_point():
        given["attention_mask"] = real()
    if "spatial_shapes" in (parameters := list(signature(model.forward).parameters)[1:]):
        given |= {"pixel_attention_mask": torch.ones(3, 16).long(), "spatial_shapes": torch.full((3, 2), 4)}
    if "token_type_ids" in parameters and "pixel_values" in parameters and "image_embeds" in parameters:
        given["pixel_values"] = torch.randn(3, 3, SIDE, SIDE)
    if "bbox" in parameters:
        given["bbox"] = torch.randint(0, 64, (3, inputs.shape[1], 4)).sort(-1).values
    last = max((parameters.index(key) + 1 for key in given if key in parameters), default=0)
    return tuple(given.get(key) for key in parameters[:last])
