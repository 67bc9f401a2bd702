"""Attention written out, so that its probabilities exist; and the modes that look at it or change it.

Fused kernels never form the attention probabilities. A torch function mode sees every call that the
model makes to one, whatever the model's class, and computes the same output from the textbook formula.
Nothing in the model is edited. The modes stack: what one passes on, the mode below it sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.sites.mode import Mode
from captum_vit.trace.modes.attention_weights import SOFTMAX, Attended, attended, begins, follow, marked


@dataclass
class Attention:
    """One attention: ``context = probs @ values``, all three in the graph of the model's output."""

    probs: Tensor  # shape: (B, H, Nq, Nk)
    values: Tensor  # shape: (B, H, Nk, d)
    context: Tensor  # shape: (B, H, Nq, d)
    sure: bool = True  # whether it is beyond doubt which of the axes is the batch


def scores(
    query: Tensor,  # shape: (B, H, Nq, d)
    key: Tensor,  # shape: (B, H, Nk, d)
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    first: int = 0,  # which query of all is the first of these
) -> Tensor:  # shape: (B, H, Nq, Nk)
    """Scaled dot products, masked."""
    s = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        future = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1 + first)
        s = s.masked_fill(future, -math.inf)
    if attn_mask is None:
        return s
    return s.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else s + attn_mask


def probabilities(s: Tensor) -> Tensor:
    """Softmax over the keys; in float32 for half precision, as fused kernels do."""
    wide = torch.float32 if s.dtype in (torch.float16, torch.bfloat16) else None
    return torch.softmax(s, -1, dtype=wide).to(s.dtype)


def attended_from(
    query: Tensor,  # shape: (B, H, Nq, d)
    key: Tensor,  # shape: (B, H, Nk, d)
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    first: int = 0,
) -> Tensor:  # shape: (B, H, Nq, Nk)
    """The probabilities of all keys for some queries, from the textbook formula."""
    s, blind = scores(query, key, attn_mask, is_causal, scale, first), _blind(attn_mask)
    return probabilities(s) if blind is None else probabilities(s.masked_fill(blind, 0)).masked_fill(blind, 0)


def for_each_head(query: Tensor, *shared: Tensor) -> tuple[Tensor, ...]:
    """Keys and values that several heads share, once for each head."""
    return tuple(x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in shared)


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
    if enable_gqa:
        key, value = for_each_head(query, key, value)
    probs = attended_from(query, key, attn_mask, is_causal, scale)
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


BEGINNINGS = frozenset({F.scaled_dot_product_attention, *SOFTMAX})
"""What an attention begins with."""


class AttentionTap(Mode):
    """Reports every attention that Python code runs inside the context, fused or not.

    One that is written out is followed from its softmax to the product with the values, in whatever order its axes
    are, and that product is done on (B, H, N, .) tensors so that those are in the graph.

    Args:
        see: called with each :class:`Attention`.
        batch: the number of samples: of heads behind one another it says how many there are.
        first_row: report the first query's probabilities alone, (B, H, 1, Nk). The model's own kernel then
            runs, and the row is computed beside it: a share of 1 / N of the work, and no gradient.
        instead: computes a fused attention in another form, and reports it; None of one that it leaves to this mode.
    """

    reads: Collection[Any] | None = BEGINNINGS

    def __init__(
        self,
        see: Callable[[Attention], None],
        batch: int = 1,
        first_row: bool = False,
        instead: Callable[..., Tensor | None] | None = None,
    ) -> None:
        super().__init__()
        self.see, self.batch, self.first_row, self.instead = see, batch, first_row, instead

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.scaled_dot_product_attention:
            return self._fused(*args, **kwargs)
        weights = marked(args, kwargs) if self.reads is None else None
        if weights is None:
            result = func(*args, **kwargs)
        elif (found := attended(func, args, kwargs, self.batch)) is not None:
            return self._product(*found)
        else:
            result = follow(weights, func, args, kwargs)
        if func in SOFTMAX and begins(args, kwargs, result):
            self.reads = None  # any call may lead from these weights to the product
        return result

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """A kernel; without an axis for the heads, they are one, or lie behind one another."""
        flat = query.dim() == 3
        if flat:
            mask = kwargs.pop("attn_mask", args[0] if args else None)
            mask = mask if mask is None or mask.dim() < 3 else self._with_heads(mask.expand(len(query), -1, -1))
            query, key, value = map(self._with_heads, (query, key, value))
            args = (mask, *args[1:])
        sure = not flat or self.batch == 1 or query.shape[1] == 1
        other = None if self.instead is None or not sure else self.instead(query, key, value, *args, **kwargs)
        if other is not None:
            return other.flatten(0, 1) if flat else other
        run = of_first_query if self.first_row else explicit
        attention = run(query, key, value, *args, **kwargs)
        attention.sure = sure
        self.see(attention)
        kernel = F.scaled_dot_product_attention
        context = kernel(query, key, value, *args, **kwargs) if self.first_row else attention.context
        return context.flatten(0, 1) if flat else context

    def _with_heads(self, x: Tensor) -> Tensor:  # (B * H, N, .) -> (B, H, N, .)
        return x.unflatten(0, (self.batch if len(x) % self.batch == 0 else len(x), -1))

    def _product(self, found: Attended, out_axes: str) -> Tensor:
        attention = Attention(found.probs, found.values, found.probs @ found.values, found.sure)
        self.see(attention)
        return found.result(attention.context, out_axes)
