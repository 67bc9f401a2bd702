"""Small language models of many families, with random weights in double precision."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers as hf
from torch import nn

WORDS = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
LLAMA = WORDS | {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = LLAMA | {"num_key_value_heads": 2}
WIDE = GROUPED | {"head_dim": 12}
GPT = WORDS | {"n_embd": 32, "n_layer": 2, "n_head": 4}
EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8
}  # fmt: skip

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", GROUPED),
    "Mistral": ("Mistral", GROUPED | {"sliding_window": 4}),
    "Qwen2": ("Qwen2", GROUPED),
    "Qwen3": ("Qwen3", WIDE),
    "Gemma2": ("Gemma2", WIDE),
    "Gemma3": ("Gemma3Text", WIDE),
    "Phi": ("Phi", LLAMA),
    "Phi3": ("Phi3", GROUPED),
    "GPT-2": ("GPT2", GPT),
    "GPT-NeoX": ("GPTNeoX", LLAMA),
    "GPT-J": ("GPTJ", GPT | {"rotary_dim": 4}),
    "OPT": ("OPT", LLAMA | {"ffn_dim": 40, "word_embed_proj_dim": 32}),
    "Falcon": ("Falcon", LLAMA),
    "SmolLM3": ("SmolLM3", GROUPED),
    "OLMo2": ("Olmo2", GROUPED),
    "Cohere2": ("Cohere2", GROUPED),
    "Granite": ("Granite", GROUPED),
    "StableLM": ("StableLm", GROUPED),
    "Mixtral": ("Mixtral", GROUPED | {"num_local_experts": 4}),
    "Qwen3-MoE": ("Qwen3Moe", WIDE | EXPERTS | {"num_experts": 4}),
    "DeepSeek-V3": ("DeepseekV3", LLAMA | LATENT | EXPERTS | {
        "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1
    }),
    "GPT-OSS": ("GptOss", WIDE | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Bloom": ("Bloom", GPT | {"hidden_size": 32}),
    "Mamba": ("Mamba", LLAMA | {"state_size": 8}),
    "Qwen3-Next": ("Qwen3Next", WIDE | EXPERTS | LINEAR | {
        "num_experts": 4, "shared_expert_intermediate_size": 24, "num_hidden_layers": 4
    }),
    "Mamba-2": ("Mamba2", LLAMA | {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 2, "chunk_size": 4}),
}  # fmt: skip
REFUSED = ("Bloom", "Mamba", "Mamba-2", "Qwen3-Next")
COMPLETE = tuple(name for name in FAMILIES if name not in REFUSED)
IN_FLOAT32 = frozenset(COMPLETE) - {"Phi", "GPT-2", "GPT-NeoX", "GPT-J", "OPT", "Falcon", "StableLM"}
"""Families whose norms cast to float32, whatever the model's precision: sums are exact to that."""


def written(kind: str, name: str, **options: Any) -> nn.Module:
    """A model of a family: ``"CausalLM"`` or ``"SequenceClassification"``."""
    family, sizes = FAMILIES[name]
    config = getattr(hf, f"{family}Config")(**sizes | options)
    torch.manual_seed(0)
    model = getattr(hf, f"AutoModelFor{kind}").from_config(config).double().eval()
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("batched_mm")  # the loop differs from text to text; others have no float64
    for label, p in model.named_parameters():
        norm = "norm" in label.lower() and label.endswith("weight")
        nn.init.normal_(p, float(norm), 0.2 if p.dim() == 1 else 0.15)
    return model


@cache
def decoder(name: str) -> nn.Module:
    """One language model for all tests: what is found in it is found once."""
    return written("CausalLM", name)


@cache
def classifier(name: str) -> nn.Module:
    """One with a head on the last token that is no padding."""
    return written("SequenceClassification", name, num_labels=3)
