"""Queries and keys of an attention: given to a kernel, or followed from their product to the softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.sites.calls import name_of
from captum_vit.sites.einsums import Product, product_of
from captum_vit.sites.mode import Mode
from captum_vit.trace.modes.attention_weights import CAST, SOFTMAX, factors, softmax_axis
from captum_vit.trace.modes.explicit import for_each_head
from captum_vit.trace.modes.functions import ADDED, PRODUCTS, QUOTIENTS, SUMS, named

# What scales, caps or masks scores, or takes their leading axes apart: the last two axes keep their order.
KEPT = SUMS | PRODUCTS | QUOTIENTS | CAST
KEPT |= named("add_ sub_ mul_ div_ __iadd__ __isub__ __imul__ __itruediv__ masked_fill masked_fill_ where clamp tanh")
KEPT |= named("view reshape unflatten flatten unsqueeze squeeze")
_MARK = "_made_of_queries_and_keys"


class QueryTap(Mode):
    """Reports the queries and keys of every attention inside the context.

    Args:
        see: called with queries (B, H, Nq, d) and keys (B, H, Nk, d).
        batch: the number of samples: of heads behind one another it says how many there are.
    """

    def __init__(self, see: Callable[[Tensor, Tensor], None], batch: int) -> None:
        super().__init__()
        self.see, self.batch = see, batch

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.scaled_dot_product_attention:
            self._see_fused(*args, **kwargs)
            return func(*args, **kwargs)
        product = product_of("bmm", args[1:3], {}) if func in ADDED else product_of(name_of(func), args, kwargs)
        scores = product or _product_behind(args)
        result = func(*args, **kwargs)
        if scores is not None and isinstance(result, Tensor):
            if func in SOFTMAX:
                self._see_scores(scores, result, softmax_axis(args, kwargs))
            elif product is not None or (func in KEPT and _keeps(result, scores)):
                setattr(result, _MARK, scores)
        return result

    def _see_fused(
        self, query: Tensor, key: Tensor, value: Tensor, *args: Any, enable_gqa: bool = False, **kwargs: Any
    ) -> None:
        if query.dim() == 3:  # heads lie behind one another
            query, key = (
                x.unflatten(0, (self.batch if len(x) % self.batch == 0 else len(x), -1)) for x in (query, key)
            )
        elif enable_gqa:
            (key,) = for_each_head(query, key)
        self.see(query, key)

    def _see_scores(self, scores: Product, weights: Tensor, axis: int) -> None:
        if axis % weights.dim() == weights.dim() - 1 and (found := factors(scores, self.batch)) is not None:
            self.see(*found)


def _product_behind(args: tuple[Any, ...]) -> Product | None:
    """That of which one of the arguments was made."""
    found = (x.__dict__[_MARK] for x in args if isinstance(x, Tensor) and _MARK in x.__dict__)
    return next(found, None)


def _keeps(result: Tensor, scores: Product) -> bool:
    """Whether there is one number for each query and key still."""
    size = dict(zip(scores.a_axes, scores.a.shape, strict=True)) | dict(zip(scores.b_axes, scores.b.shape, strict=True))
    return result.shape[-2:] == torch.Size([size[letter] for letter in scores.out_axes[-2:]])
