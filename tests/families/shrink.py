"""A small configuration of any Hugging Face class: every size that its default has, by the name of the entry."""

from __future__ import annotations

import re
from typing import Any

WIDTH, HEADS, BLOCKS, WORDS, SIDE, PATCH, CLASSES = 32, 4, 2, 96, 32, 8, 5

# The first pattern that matches the whole name of an entry gives its value.
SIZES: list[tuple[str, int]] = [
    (r"(\w+_)?vocab_size|n_words", WORDS),
    (r"max_position_embeddings|n_positions|n_ctx|(max_)?seq(uence)?_len(gth)?|(\w+_)?max_length", 64),
    (r"max_(source|target)_positions", 64),
    (r"(\w+_)?(hidden_size|d_model|n_embd|embedding_size|emb_dim|dim_model|entity_emb_size)", WIDTH),
    (r"embed_dim|dim|d_embed|hidden_dim|hidden_sizes|embed_dims|neck_hidden_sizes|encoder_hidden_sizes", WIDTH),
    (r"(classifier_proj|projection|mlp_proj)_(size|dim)|(aspp_)?out_channels|pooler_output_size", WIDTH),
    (r"(num|n)_(hidden_layers|layers?)|(encoder|decoder)_layers|num_(decoder|encoder|\w+_hidden)_layers", BLOCKS),
    (r"n_heads?|num_heads|(\w+_)?num_(\w+_)?attention_heads|(encoder|decoder)_(num|attention)_heads", HEADS),
    (r"num_(key_value|kv|query)_(heads|groups)|n_kv_heads", HEADS // 2),
    (r"(global_)?head_dim|d_kv|d_head|(qk|v|attention)_head_dim|attention_head_size", WIDTH // HEADS),
    (r"qk_(nope|rope)_head_dim|rotary_dim|mamba_headdim|kv_channels", WIDTH // HEADS // 2),
    (r"(q|kv)_lora_rank|adapter_rank|mamba_d_state|mamba_dt_rank", 16),
    (r"(\w+_)?(intermediate_size|ffn_dim|ffn_hidden_size|inner_dim|d_ff|d_inner|n_inner|filter_size)", 2 * WIDTH),
    (r"feed_forward_size", 2 * WIDTH),
    (r"num_(local_|routed_)?experts|n_routed_experts", 4),
    (r"num_experts_per_tok(en)?|moe_topk|moe_k|topk_group|n_group", 2),
    (r"image_size|crop_size|input_size", SIDE),
    (r"patch_size", PATCH),
    (r"num_frames|frames_per_clip", 4),
    (r"sliding_window|attention_window|local_attention", 16),
    (r"num_mel_bins", 16),
    (r"conv_dim", 16),
    (r"num_conv_pos_embeddings", 16),
    (r"depths?|layers", 1),
]
ABSENT = re.compile(r"vocab_size|(?<!global_)head_dim|num_key_value_heads")  # sizes that a default may leave open
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id")


def small(config_class: Any, of_its_own: dict[str, Any]) -> Any:
    """A configuration of two blocks, 32 channels and 96 words; entries of its own go before."""
    return config_class(**shrunk(config_class(), of_its_own), num_labels=CLASSES)


def shrunk(config: Any, of_its_own: dict[str, Any]) -> dict[str, Any]:
    """The entries of a configuration that are to change; of those within it likewise."""
    found: dict[str, Any] = {"pad_token_id": 0}
    for key, value in vars(config).items():
        if hasattr(value, "to_dict"):
            found[key] = shrunk(value, of_its_own.get(key, {}))
        elif key.endswith(("layer_types", "layers_block_type")) and value:
            found[key] = [value[0], next((other for other in value if other != value[0]), value[0])]
        elif key in TOKENS:
            found[key] = TOKENS.index(key)
        else:
            found |= resized(key, value)
    return found | {key: value for key, value in of_its_own.items() if not hasattr(vars(config).get(key), "to_dict")}


def resized(key: str, value: Any) -> dict[str, Any]:
    """One entry, of lists each number; nothing where its name is not one of a size."""
    size = next((size for pattern, size in SIZES if re.fullmatch(pattern, key)), None)
    if size is None or isinstance(value, bool) or key.startswith("_"):
        return {}
    if isinstance(value, list | tuple) and value and isinstance(value[0], int):
        return {key: [size] * len(value)}
    return {key: size} if isinstance(value, int) or (value is None and ABSENT.fullmatch(key)) else {}
