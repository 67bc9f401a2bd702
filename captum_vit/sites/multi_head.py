"""PyTorch's packed multi-head attention, as the calls that it is made of."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import TraceError


def unpacked_multi_head(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
    add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None,
    training: bool = True, key_padding_mask: Tensor | None = None, need_weights: bool = True,
    attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None, static_k: Tensor | None = None, static_v: Tensor | None = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """``F.multi_head_attention_forward`` in calls that a mode can see: three projections, attention, one more.

    Inputs are (N, B, D) as there; the calls have the batch first. Attention weights are not returned: who wants
    them reads the tap.
    """
    if any(x is not None for x in (bias_k, bias_v, static_k, static_v)) or add_zero_attn or query.dim() != 3:
        raise TraceError(
            "A plain batched nn.MultiheadAttention.",
            "one with bias_kv, static keys, add_zero_attn, or an unbatched input",
            "a model without them; they add tokens that belong to no place in the input.",
        )
    weights: Any = (q_proj_weight, k_proj_weight, v_proj_weight)
    if in_proj_weight is not None and not use_separate_proj_weight:
        weights = in_proj_weight.chunk(3)
    biases: Any = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)

    def heads(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # (N, B, D) -> (B, H, N, d)
        return F.linear(x.transpose(0, 1), weight, bias).unflatten(-1, (num_heads, -1)).transpose(1, 2)

    q, k, v = map(heads, (query, key, value), weights, biases)
    mask = _merged_mask(attn_mask, key_padding_mask, q, k)
    context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal and mask is None)
    merged = context.transpose(1, 2).flatten(2)
    return F.linear(merged, out_proj_weight, out_proj_bias).transpose(0, 1), None


def _merged_mask(attn_mask: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
    """nn.MultiheadAttention's two masks (True = hidden) as one additive mask."""

    def additive(mask: Tensor) -> Tensor:
        if mask.dtype != torch.bool:
            return mask.to(q.dtype)
        return torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(mask, -math.inf)

    merged = None if padding is None else additive(padding)[:, None, None, :]
    if attn_mask is None:
        return merged
    mask = additive(attn_mask)
    mask = mask.view(-1, q.shape[1], *mask.shape[-2:]) if mask.dim() == 3 else mask
    return mask if merged is None else merged + mask
