"""Attention written out, so that its probabilities exist; and the modes that look at it or change it.

Fused kernels never form the attention probabilities. A torch function mode sees every call that the
model makes to one, whatever the model's class, and computes the same output from the textbook formula.
Nothing in the model is edited. The modes stack: what one passes on, the mode below it sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.sites.mode import Mode
from captum_vit.sites.multi_head import unpacked_multi_head

SOFTMAX = {torch.softmax, F.softmax, torch.Tensor.softmax}
MATMUL = {torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.bmm}
# What an eager attention does to its probabilities on their way to the values.
CARRY = {
    F.dropout, torch.dropout, torch.reshape, torch.flatten, torch.Tensor.view, torch.Tensor.reshape,
    torch.Tensor.contiguous, torch.Tensor.to, torch.Tensor.type_as, torch.Tensor.float, torch.Tensor.half,
    torch.Tensor.bfloat16, torch.Tensor.clone, torch.Tensor.flatten,
}  # fmt: skip


@dataclass
class Attention:
    """One attention: ``context = probs @ values``, all three in the graph."""

    probs: Tensor  # shape: (B, H, Nq, Nk)
    values: Tensor  # shape: (B, H, Nk, d)
    context: Tensor  # shape: (B, H, Nq, d)


def scores(
    query: Tensor,  # shape: (B, H, Nq, d)
    key: Tensor,  # shape: (B, H, Nk, d)
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:  # shape: (B, H, Nq, Nk)
    """Scaled dot products, masked."""
    s = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        future = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1)
        s = s.masked_fill(future, -math.inf)
    if attn_mask is None:
        return s
    return s.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else s + attn_mask


def probabilities(s: Tensor) -> Tensor:
    """Softmax over the keys; in float32 for half precision, as fused kernels do."""
    wide = torch.float32 if s.dtype in (torch.float16, torch.bfloat16) else None
    return torch.softmax(s, -1, dtype=wide).to(s.dtype)


def explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Attention:
    """``F.scaled_dot_product_attention`` from the textbook formula. Models are in eval mode: no dropout."""
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    s = scores(query, key, attn_mask, is_causal, scale)
    blind = _blind(attn_mask)
    probs = probabilities(s) if blind is None else probabilities(s.masked_fill(blind, 0)).masked_fill(blind, 0)
    return Attention(probs, value, probs @ value)


def _blind(attn_mask: Tensor | None) -> Tensor | None:  # shape: (..., Nq, 1)
    """Queries that may see no key at all (padding far from the text, under a sliding window); None if there are none.

    Fused kernels give them zeros, where a softmax would give NaN to everyone.
    """
    if attn_mask is None:
        return None
    hidden = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask.isneginf()
    blind = hidden.all(-1, keepdim=True)
    return blind if blind.any() else None


@torch.no_grad()
def of_first_query(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
) -> Attention:
    """What the first token attends to, under the mask it has."""
    mask = attn_mask if attn_mask is None or attn_mask.shape[-2] == 1 else attn_mask[..., :1, :]
    return explicit(query[..., :1, :], key, value, mask, *args, **kwargs)


class AttentionTap(Mode):
    """Reports every attention that Python code runs inside the context, fused or not.

    Args:
        see: called with each :class:`Attention`.
        first_row: report the first query's probabilities alone, (B, H, 1, Nk). The model's own kernel then
            runs, and the row is computed beside it: a share of 1 / N of the work, and no gradient.
        when: asked before each attention whether it is wanted; others run as they are.
    """

    def __init__(
        self, see: Callable[[Attention], None], first_row: bool = False, when: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__()
        self.see, self.first_row, self.when = see, first_row, when

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.when():
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            if not self.first_row:
                return self._report(explicit(*args, **kwargs)).context
            self.see(of_first_query(*args, **kwargs))
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return unpacked_multi_head(*args, **kwargs)
        if func in MATMUL and (probs := _carried(args[0])) is not None:
            return self._consumed(probs, args[1]).reshape(*args[0].shape[:-1], args[1].shape[-1])
        result = func(*args, **kwargs)
        if func in SOFTMAX and result.dim() >= 3:
            _carry(result, result)
        elif func in CARRY and (probs := _carried(args[0])) is not None and isinstance(result, Tensor):
            # A cast keeps the shape: the matmul then uses the cast tensor, so that one is reported.
            _carry(result, result if result.shape == probs.shape else probs)
        return result

    def _report(self, attention: Attention) -> Attention:
        self.see(attention)
        return attention

    def _consumed(self, probs: Tensor, values: Tensor) -> Tensor:
        """The matmul of an eager attention, done on (B, H, N, .) tensors so that those are in the graph."""
        if values.dim() != probs.dim():
            values = values.view(*probs.shape[:-2], *values.shape[-2:])
        if probs.dim() == 3:
            probs, values = probs[None], values[None]
        return self._report(Attention(probs, values, probs @ values)).context


_MARK = "_attention_probs"


def _carry(tensor: Tensor, probs: Tensor) -> None:
    """Mark a tensor as holding these probabilities; itself is written as None, to make no reference cycle."""
    setattr(tensor, _MARK, None if probs is tensor else probs)


def _carried(tensor: Any) -> Tensor | None:
    if not isinstance(tensor, Tensor) or not hasattr(tensor, _MARK):
        return None
    probs: Tensor | None = getattr(tensor, _MARK)
    return tensor if probs is None else probs
