"""Where a pass attends: probabilities over tokens, multiplied onto the tokens' values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from captum_vit.description.graph import Graph
from captum_vit.description.values import RESHAPE, Op, Value
from captum_vit.sites.einsums import axes_of, product_of
from captum_vit.sites.nests import tensors_in

MIX = {"matmul", "bmm", "__matmul__", "__rmatmul__", "einsum", "baddbmm"}
PART = {"__getitem__", "narrow"}
FURTHEST = 12  # torch calls between a softmax and the values


@dataclass(eq=False)
class Attention:
    """One attention: the torch call that mixes ``values`` into ``context``."""

    op: Op
    context: Value
    values: Value
    looks: list[Value]  # what the probabilities are made of: queries and keys, or the probabilities themselves
    rows: int  # that attend
    columns: int  # that are attended to
    heads: torch.Tensor | None  # shape: (H, N, d), the context; None where its axes are not known
    between: tuple[str, ...] = ()  # what changes the probabilities on their way to the values


def attentions(graph: Graph) -> list[Attention]:
    """Every attention of a pass, in order: fused, or a softmax followed to the values."""
    found: dict[Op, Attention] = {}
    for op in graph.ops:
        if op.name == "scaled_dot_product_attention":
            found[op] = _fused(op)
        elif op.name == "softmax" and op.makes[0].tensor.dim() >= 3 and graph.depends(op.makes[0]):
            attention = _followed(graph, op)
            if attention is not None:
                if attention.op in found:
                    attention.between = (*attention.between, "the sum of several softmaxes")
                found[attention.op] = attention
    return sorted(found.values(), key=lambda a: a.op.index)


def _fused(op: Op) -> Attention:
    values = dict(zip(map(id, tensors_in((op.args, op.kwargs))), op.takes, strict=False))

    def bound(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> list[Value]:
        return [values[id(t)] for t in (query, key, value)]

    q, k, v = bound(*op.args, **op.kwargs)
    rows, columns = q.tensor.shape[-2], k.tensor.shape[-2]
    context = op.makes[0]
    return Attention(op, context, v, [q, k], rows, columns, context.tensor.reshape(-1, *context.tensor.shape[-2:]))


def _followed(graph: Graph, softmax: Op) -> Attention | None:
    """From a softmax to the product with the values; what changes it on the way is noted."""
    probs = softmax.makes[0]
    ahead: list[tuple[Value, tuple[str, ...]]] = [(probs, ())]
    seen = {probs}
    for value, changed in ahead:
        for op in value.users:
            if op.name in MIX and (others := _others(graph, op, value)):
                return Attention(op, op.makes[0], others[-1], [value], *_laid_out(op, value), changed)
            if op.index - softmax.index > FURTHEST:
                continue
            for made in op.makes:
                as_many = made.tensor.numel() == probs.tensor.numel() or op.name in PART
                if made not in seen and made.tensor.dim() >= 3 and as_many:
                    seen.add(made)
                    ahead.append((made, changed if _kept(op, value, made) else (*changed, op.name)))
    return None


def _laid_out(op: Op, probs: Value) -> tuple[int, int, torch.Tensor | None]:
    """How many places attend to how many, and the context as (H, N, d), whatever the order of axes."""
    product = product_of(op.name, op.args, op.kwargs)
    product = product if product is None or product.a is probs.tensor else product.turned()
    axes = None if product is None else axes_of(product)
    if product is None or axes is None:
        rows, columns = probs.tensor.shape[-2:]
        return rows, columns, None
    order = [product.out_axes.index(letter) for letter in (*axes.lead, *axes.query, axes.channel)]
    rows = axes.size[axes.query] if axes.query else 1
    heads = op.makes[0].tensor.permute(order).reshape(-1, rows, axes.size[axes.channel])
    return rows, axes.size[axes.key], heads


def _others(graph: Graph, op: Op, probs: Value) -> list[Value]:
    return [
        v
        for v in op.takes
        if v is not probs and v.tensor.dim() >= 3 and v.tensor.is_floating_point() and graph.depends(v)
    ]


def _kept(op: Op, before: Value, after: Value) -> bool:
    """Whether the probabilities are what they were."""
    x, y = before.tensor, after.tensor
    if op.name in RESHAPE and x.numel() == y.numel():
        return True
    if op.name in PART and x.shape[:-1] == y.shape[:-1]:  # without a learned sink, which is no token's
        x = x[..., : y.shape[-1]]
    return x.shape == y.shape and torch.allclose(x.float(), y.float(), atol=1e-6)
