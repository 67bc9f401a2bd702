"""How an attention projects its tokens: seen while it runs, so that no class need be known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.sites.mode import Mode


class Linear(NamedTuple):
    """One call of ``F.linear``."""

    input: Tensor
    output: Tensor
    weight: Tensor
    bias: Tensor | None


class Call(NamedTuple):
    """The arguments of one call of ``F.scaled_dot_product_attention``."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False


@dataclass
class Projections:
    """Plain linear keys and values of H heads. The keys' bias shifts all scores alike: the softmax forgets it.

    In float32 for models of half precision.
    """

    keys: Tensor  # shape: (H, d, D), the scale of the scores included
    values: Tensor  # shape: (H, d, D)
    bias: Tensor  # shape: (H, d), of the values

    def pulled(self, query: Tensor) -> Tensor:  # (R, H, 1, d) -> (R, H, D)
        """Queries in the space of tokens: their product with a token is that with its key."""
        return torch.einsum("rhd,hde->rhe", query.squeeze(2).to(self.keys.dtype), self.keys)

    def values_of(self, tokens: Tensor) -> Tensor:  # (R, H, D) -> (R, H, d)
        """The value, in each head, of a token of its own."""
        return torch.einsum("rhe,hde->rhd", tokens, self.values) + self.bias


class LookAtAttention(Mode):
    """Keeps every linear layer and every attention that runs inside."""

    reads = frozenset({F.linear, F.scaled_dot_product_attention})

    def __init__(self) -> None:
        super().__init__()
        self.linears: list[Linear] = []
        self.attentions: list[Call] = []

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.scaled_dot_product_attention:
            return self.attend(func, Call(*args, **kwargs))
        output = func(*args, **kwargs)
        if func is F.linear:
            self.linears.append(_linear(output, *args, **kwargs))
        return output

    def attend(self, func: Any, call: Call) -> Tensor:
        self.attentions.append(call)
        return func(**call._asdict())

    def projections(
        self,
        tokens: Tensor,  # shape: (1, N, D), what the attention was given
    ) -> Projections | None:
        """Its keys and values, if it is one attention over plain projections of these tokens, without a mask."""
        if len(self.attentions) != 1:
            return None
        call = self.attentions[0]
        q, k, v = call.query, call.key, call.value
        plain = call.attn_mask is None and not call.is_causal and q.dim() == 4 and q.shape == k.shape == v.shape
        linears = [x for x in self.linears if alike(x.input.reshape(-1, x.input.shape[-1]), tokens[0])]
        keys, values = (_behind(linears, x) if plain else None for x in (k, v))
        if keys is None or values is None:
            return None
        wide = torch.promote_types(k.dtype, torch.float32)
        (W_K, _), (W_V, b_V) = keys, values
        scale = k.shape[-1] ** -0.5 if call.scale is None else call.scale
        bias = W_V.new_zeros(W_V.shape[:2]) if b_V is None else b_V
        return Projections(W_K.to(wide) * scale, W_V.to(wide), bias.to(wide))


class AnswerAttention(LookAtAttention):
    """Answers the first attention, once ``answer`` is set, from its query alone."""

    answer: Callable[[Tensor], Tensor] | None = None

    def attend(self, func: Any, call: Call) -> Tensor:
        answer, self.answer = self.answer, None
        return super().attend(func, call) if answer is None else answer(call.query)


def _linear(output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Linear:
    return Linear(input, output, weight, bias)


def _behind(
    linears: list[Linear],
    heads: Tensor,  # shape: (1, H, N, d)
) -> tuple[Tensor, Tensor | None] | None:  # shapes: (H, d, D), (H, d)
    """Weight and bias of the layer, or of that part of a merged layer, whose output the heads are."""
    rows = heads[0].transpose(0, 1).flatten(1)  # shape: (N, H * d)
    shape = heads.shape[1], heads.shape[3]
    for x in linears:
        parts = x.weight.shape[0] // rows.shape[1]
        outputs = x.output.reshape(-1, x.output.shape[-1]).chunk(max(parts, 1), -1)
        for i, output in enumerate(outputs):
            if output.shape == rows.shape and torch.equal(output, rows):
                bias = None if x.bias is None else x.bias.detach().chunk(parts)[i].unflatten(0, shape)
                return x.weight.detach().chunk(parts)[i].unflatten(0, shape), bias
    return None


def alike(found: Tensor, wanted: Tensor) -> bool:
    """Equal up to half the digits of their precision: the same function, summed in another order."""
    if found.shape != wanted.shape:
        return False
    error = (found - wanted).abs().max()
    return bool(error <= torch.finfo(wanted.dtype).eps ** 0.5 * wanted.abs().max())
