"""Small vision-language models of each layout, in float64 with random weights, and the inputs a processor makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

IMAGE = 150  # the id that stands for a part of a picture
TEXT = {
    "vocab_size": 200, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14,
}  # fmt: skip
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]}}
IDS = {"image_token_id": IMAGE, "video_token_id": 151, "vision_start_token_id": 152, "vision_end_token_id": 153}
LLAMA = {key: value for key, value in TEXT.items() if key != "head_dim"}


def prompt(*pictures: int) -> Tensor:
    """Ids (1, N): words, and for each picture as many placeholders as it has tokens."""
    ids = [1, 2]
    for number in pictures:
        ids += [*[IMAGE] * number, 7, 8]
    return torch.tensor([[*ids, 9]])


def pixels(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def llava() -> tuple[nn.Module, dict[str, Any]]:
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, image_size=56),
        text_config=hf.LlamaConfig(**LLAMA),
        image_token_id=IMAGE,
    )
    inputs = {"input_ids": prompt(16, 16), "pixel_values": pixels(2, 3, 56, 56)}
    return hf.LlavaForConditionalGeneration(config), inputs


def llava_next() -> tuple[nn.Module, dict[str, Any]]:
    """One picture of 56 x 112 pixels: the whole and two tiles, whose rows end with `image_newline`."""
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, image_size=56), text_config=hf.LlamaConfig(**LLAMA),
        image_token_id=IMAGE,
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
    )  # fmt: skip
    inputs = {
        "input_ids": prompt(16 + 4 * 9),
        "pixel_values": pixels(1, 3, 3, 56, 56),
        "image_sizes": torch.tensor([[56, 112]]),
    }
    return hf.LlavaNextForConditionalGeneration(config), inputs


def llava_onevision() -> tuple[nn.Module, dict[str, Any]]:
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=56, vision_use_head=False),
        text_config=hf.Qwen2Config(**LLAMA), image_token_id=IMAGE, video_token_id=151,
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
    )  # fmt: skip
    inputs = {
        "input_ids": prompt(16 + 4 * 9),
        "pixel_values": pixels(1, 3, 3, 56, 56),
        "image_sizes": torch.tensor([[56, 112]]),
    }
    return hf.LlavaOnevisionForConditionalGeneration(config), inputs


def _qwen(config: Any, channels: int, model: Callable[[Any], nn.Module]) -> tuple[nn.Module, dict[str, Any]]:
    """Two pictures, of 4 x 8 and of 4 x 4 patches, in rows of flat patches."""
    ids = prompt(8, 4)
    inputs = {
        "input_ids": ids,
        "pixel_values": pixels(48, channels),
        "image_grid_thw": torch.tensor([[1, 4, 8], [1, 4, 4]]),
        "mm_token_type_ids": (ids == IMAGE).long(),
    }
    return model(config), inputs


def qwen2() -> tuple[nn.Module, dict[str, Any]]:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 48, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    config = hf.Qwen2VLConfig(text_config={**LLAMA, **ROPE}, vision_config=vision, **IDS)
    return _qwen(config, 1176, hf.Qwen2VLForConditionalGeneration)


def qwen2_5() -> tuple[nn.Module, dict[str, Any]]:
    vision = {
        "depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 48,
        "fullatt_block_indexes": [1], "window_size": 56,
    }  # fmt: skip
    config = hf.Qwen2_5_VLConfig(text_config={**LLAMA, **ROPE}, vision_config=vision, **IDS)
    return _qwen(config, 1176, hf.Qwen2_5_VLForConditionalGeneration)


def qwen3() -> tuple[nn.Module, dict[str, Any]]:
    """Its middle blocks' features are added to the first layers of the language model (DeepStack)."""
    vision = {
        "depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 48,
        "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16, "patch_size": 14,
    }  # fmt: skip
    config = hf.Qwen3VLConfig(text_config={**TEXT, **ROPE}, vision_config=vision, **IDS)
    return _qwen(config, 1176, hf.Qwen3VLForConditionalGeneration)


def idefics3() -> tuple[nn.Module, dict[str, Any]]:
    vision = {**VISION, "image_size": 56}
    config = hf.Idefics3Config(
        vision_config=vision, text_config=hf.LlamaConfig(**LLAMA), image_token_id=IMAGE, scale_factor=2, pad_token_id=0
    )
    inputs = {"input_ids": prompt(4, 4), "pixel_values": pixels(1, 2, 3, 56, 56)}
    return hf.Idefics3ForConditionalGeneration(config), inputs


def smolvlm() -> tuple[nn.Module, dict[str, Any]]:
    vision = {**VISION, "image_size": 56}
    config = hf.SmolVLMConfig(
        vision_config=vision, text_config=hf.LlamaConfig(**LLAMA), image_token_id=IMAGE, scale_factor=2, pad_token_id=0
    )
    inputs = {"input_ids": prompt(4, 4), "pixel_values": pixels(1, 2, 3, 56, 56)}
    return hf.SmolVLMForConditionalGeneration(config), inputs


def paligemma() -> tuple[nn.Module, dict[str, Any]]:
    vision = hf.SiglipVisionConfig(**VISION, image_size=56, vision_use_head=False, projection_dim=48)
    config = hf.PaliGemmaConfig(
        vision_config=vision, text_config=hf.GemmaConfig(**TEXT), image_token_index=IMAGE, projection_dim=48,
        hidden_size=48, pad_token_id=0,
    )  # fmt: skip
    ids = prompt(16)
    inputs = {"input_ids": ids, "pixel_values": pixels(1, 3, 56, 56), "token_type_ids": torch.zeros_like(ids)}
    return hf.PaliGemmaForConditionalGeneration(config), inputs


def internvl() -> tuple[nn.Module, dict[str, Any]]:
    """Two tiles of 4 x 4 patches; 2 x 2 are one token."""
    vision = {**VISION, "image_size": [56, 56], "patch_size": [14, 14]}
    config = hf.InternVLConfig(
        vision_config=vision, text_config={**LLAMA, "model_type": "qwen2"}, image_token_id=IMAGE, downsample_ratio=0.5,
        image_seq_length=4,
    )  # fmt: skip
    inputs = {"input_ids": prompt(4, 4), "pixel_values": pixels(2, 3, 56, 56)}
    return hf.InternVLForConditionalGeneration(config), inputs


def gemma3() -> tuple[nn.Module, dict[str, Any]]:
    """4 x 4 patches, of which 2 x 2 are averaged to one token."""
    vision = hf.SiglipVisionConfig(**VISION, image_size=56, vision_use_head=False)
    config = hf.Gemma3Config(
        vision_config=vision, text_config={**TEXT, "sliding_window": 8}, image_token_id=IMAGE, mm_tokens_per_image=4,
        boi_token_index=152, eoi_token_index=153,
    )  # fmt: skip
    ids = prompt(4)
    inputs = {"input_ids": ids, "pixel_values": pixels(1, 3, 56, 56), "token_type_ids": (ids == IMAGE).long()}
    return hf.Gemma3ForConditionalGeneration(config), inputs


FAMILIES: dict[str, Callable[[], tuple[nn.Module, dict[str, Any]]]] = {
    "LLaVA-1.5": llava, "LLaVA-NeXT": llava_next, "LLaVA-OneVision": llava_onevision, "Qwen2-VL": qwen2,
    "Qwen2.5-VL": qwen2_5, "Qwen3-VL": qwen3, "Idefics3": idefics3, "SmolVLM": smolvlm, "PaliGemma": paligemma,
    "InternVL": internvl, "Gemma3": gemma3,
}  # fmt: skip


def made(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A family's model with weights large enough to matter, and its inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = FAMILIES[name]()
        for parameter, p in model.double().eval().named_parameters():
            scale = "norm" in parameter.lower() and parameter.endswith("weight")
            nn.init.normal_(p, float(scale), 0.2 if p.ndim == 1 else 0.13)
    return model, inputs
