"""Whether anything but attention carries numbers from token to token: tried, where the calls leave it open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.description.graph import Graph, picks
from captum_vit.description.stream import Layer
from captum_vit.description.values import ADD, FACTOR, RESHAPE, Op, Value
from captum_vit.sites.calls import ValueSite, Visits

TURNED = {"transpose", "permute", "swapaxes", "swapdims", "movedim", "moveaxis", "T", "mT", "t", "adjoint"}
# Calls that treat each token by itself, if tokens are the first axes of what they make.
TOKENWISE = (RESHAPE - TURNED) | ADD | FACTOR | {
    "linear", "addmm", "layer_norm", "rms_norm", "gelu", "relu", "relu_", "silu", "mish", "elu", "leaky_relu", "relu6",
    "hardswish", "sigmoid", "tanh", "erf", "exp", "log", "sqrt", "rsqrt", "pow", "square", "abs", "neg", "sub", "rsub",
    "__rsub__", "clamp", "mean", "var", "sum", "glu", "cat", "masked_fill", "where", "__rpow__", "reciprocal",
}  # fmt: skip
LEAST = 1e-3  # what must reach other tokens, as a share of the change


def mixing(
    graph: Graph, model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...], chain: list[Layer]
) -> str:
    """The first block behind whose attention tokens reach each other, and by which calls; nothing if they do not.

    Costs nothing where every call behind an attention treats each token by itself. Else one more pass: half of the
    tokens are changed behind each attention, and the others compared at the end of the block.
    """
    ends = [*(layer.stream for layer in chain[1:]), chain[-1].out]
    open_calls = [_open_calls(graph, layer, end) for layer, end in zip(chain, ends, strict=True)]
    reached: dict[int, float] = {}
    visits = Visits()
    for k, (layer, end) in enumerate(zip(chain, ends, strict=True)):
        start, stop = _site(graph, layer.joined), _site(graph, end)
        if open_calls[k] and start is not None and stop is not None:
            visits.add(start, _changing(layer))
            visits.add(stop, _comparing(k, layer, end, reached))
    if not visits.by_number:
        return ""
    with visits:
        model(*inputs, *args)
    found = next((k for k in sorted(reached) if reached[k] > LEAST), None)
    if found is None:
        return ""
    names = ", ".join(dict.fromkeys(op.name for op in open_calls[found]))
    return f"block {found}, in which tokens reach each other behind the attention ({names})"


def _open_calls(graph: Graph, layer: Layer, end: Value) -> list[Op]:
    """Calls between the attention's addition and the end of a block that may mix tokens."""
    if layer.joined.op is None or end.op is None:
        return []
    tokens = layer.joined.tensor.numel() // layer.width
    ahead = graph.ops[layer.joined.op.index + 1 : end.op.index + 1]
    path = [op for op in ahead if op.makes[0].made_from(layer.joined) and end.made_from(op.makes[0])]
    return [op for op in path if op.name not in TOKENWISE or _picks(op) or not _by_token(op, tokens)]


def _by_token(op: Op, tokens: int) -> bool:
    """Whether the first axes of what is made, or the first alone, are the tokens of the batch."""
    shapes = [value.tensor.shape for value in op.makes]
    return all(tokens in (shape[:1].numel(), shape[:2].numel()) for shape in shapes if shape)


def _picks(op: Op) -> bool:
    return op.name == "__getitem__" and picks(op.args[1])


def _site(graph: Graph, value: Value) -> ValueSite | None:
    op = value.op
    if op is None or op.number is None or value.result is None:
        return None
    return ValueSite(op.number, op.name, value.result, graph.number)


def _half(rows: int) -> Tensor:
    """Every second token on average, the same ones each time."""
    chosen = torch.rand(rows, generator=torch.Generator().manual_seed(0)) < 0.5
    chosen[:2] = torch.tensor([True, False])[:rows]
    return chosen


def _changing(layer: Layer) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        rows = layer.joined.tensor.reshape(-1, layer.width).clone()
        chosen = _half(len(rows)).to(rows.device)
        rows[chosen] += rows[chosen].roll(1, -1)
        return rows.view_as(x)

    return change


def _comparing(k: int, layer: Layer, end: Value, reached: dict[int, float]) -> Callable[[Tensor], Tensor]:
    """Compares with the pass before, and goes on with what that one had."""
    width = layer.width

    def compare(x: Tensor) -> Tensor:
        change = (x - end.tensor).reshape(-1, width).abs().amax(-1)
        chosen = _half(len(change)).to(change.device)
        others = change[~chosen]
        reached[k] = float(others.max() / change.max().clamp_min(1e-30)) if len(others) else 0.0
        return end.tensor

    return compare
