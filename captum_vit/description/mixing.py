"""Whether anything but attention carries numbers from token to token: tried, where the calls leave it open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_vit.description.graph import Graph, picks
from captum_vit.description.stack import layers_before, layers_behind
from captum_vit.description.stream import Layer
from captum_vit.description.values import ADD, FACTOR, RESHAPE, Op, Value
from captum_vit.errors import TraceError
from captum_vit.sites.arranged import Visit
from captum_vit.sites.calls import ValueSite, Visits

TURNED = {"transpose", "permute", "swapaxes", "swapdims", "movedim", "moveaxis", "T", "mT", "t", "adjoint"}
# Calls that treat each token by itself, if tokens are the first axes of what they make.
TOKENWISE = (RESHAPE - TURNED) | ADD | FACTOR | {
    "linear", "addmm", "layer_norm", "rms_norm", "gelu", "relu", "relu_", "silu", "mish", "elu", "leaky_relu", "relu6",
    "hardswish", "sigmoid", "tanh", "erf", "exp", "log", "sqrt", "rsqrt", "pow", "square", "abs", "neg", "sub", "rsub",
    "__rsub__", "clamp", "mean", "var", "sum", "glu", "cat", "masked_fill", "where", "__rpow__", "reciprocal",
    "linear_dynamic",  # in eight bits, rounded in one range for all tokens
}  # fmt: skip
STEM = {"conv1d", "conv2d"}
LEAST = 1e-3  # what must reach other tokens, as a share of the change


class Stretch(NamedTuple):
    """A part of the stream in which nothing should carry numbers from token to token."""

    where: str
    start: Value
    end: Value
    calls: list[Op]  # that may do so


def mixing(
    graph: Graph, model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...], chain: list[Layer]
) -> str:
    """Where tokens reach each other outside of the attentions, and by which calls; nothing if they do not.

    Costs nothing where every call treats each token by itself. Else one more pass: half of the tokens are changed at
    the start of every doubtful stretch, and the others compared at its end.
    """
    width, first = chain[0].width, _sites(graph, _stretches(graph, chain))
    reached: dict[int, float] = {}
    if not first:
        return ""
    visits: list[tuple[ValueSite, Visit]] = []
    for k, (stretch, start, stop) in enumerate(first):
        visits.append((start, _changing(stretch.start.tensor, width)))
        visits.append((stop, _comparing(k, stretch.end.tensor, width, reached)))
    try:
        with (mode := Visits(visits)):
            model(*inputs, *args)
        mode.refuse_other_code()
    except TraceError as error:
        raise TraceError(  # not remembered: the model may be set to run otherwise
            "A model that makes the same torch calls whatever its tokens hold.",
            f"{type(model).__name__}, which makes others for other tokens, as a loop over experts does",
            'model.set_experts_implementation("batched_mm") for experts of Hugging Face; "grouped_mm", in less memory, '
            "if the weights are no float64.",
        ) from error
    found = next((first[k][0] for k in sorted(reached) if reached[k] > LEAST), None)
    if found is None:
        return ""
    names = list(dict.fromkeys(op.name for op in found.calls))
    return f"{found.where} ({', '.join(names[:6])}{', ...' if len(names) > 6 else ''})"


def _stretches(graph: Graph, chain: list[Layer]) -> list[Stretch]:
    """All of a block but its attention, and layers of another kind around the blocks."""
    tokens = chain[0].joined.tensor.numel() // chain[0].width
    ends = [*(layer.stream for layer in chain[1:]), chain[-1].out]
    found = [
        Stretch(f"block {k}, in which tokens reach each other behind the attention", layer.joined, end, [])
        for k, (layer, end) in enumerate(zip(chain, ends, strict=True))
    ]
    for k, layer in enumerate(chain):
        parts = {
            "in front of the attention": (layer.stream, layer.reads),
            "between the attention and the stream": (layer.attention.context, layer.branch),
        }
        for part, (start, end) in parts.items():
            first, last = _as_tokens(start, layer), _as_tokens(end, layer)
            if first is not None and last is not None:
                found.append(Stretch(f"block {k}, in which tokens reach each other {part}", first, last, []))
    where = "layers behind the last block, in which tokens reach each other without attention"
    found.append(Stretch(where, chain[-1].out, layers_behind(graph, chain[-1].out), []))
    begin, count = layers_before(graph, chain[0])
    if count:
        where = "layers before block 0, in which tokens reach each other without attention"
        found.insert(0, Stretch(where, begin, chain[0].stream, []))
    found = [stretch._replace(calls=_doubtful(graph, stretch, tokens)) for stretch in found]
    if count == 1 and all(op.name in STEM | TURNED | RESHAPE | TOKENWISE for op in found[0].calls):
        del found[0]  # positions by a convolution
    return [stretch for stretch in found if stretch.calls]


def _as_tokens(value: Value, layer: Layer) -> Value | None:
    """A value in the shape of the stream, itself if it has it; None where it has none.

    Of several forms the last: where there are as many tokens as channels, an earlier one may have them turned.
    """
    forms = (value, *reversed(value.root.same))
    return next((v for v in forms if v.tensor.shape == layer.joined.tensor.shape), None)


def _sites(graph: Graph, stretches: list[Stretch]) -> list[tuple[Stretch, ValueSite, ValueSite]]:
    """Those whose start and end can be visited."""
    found = [(stretch, _site(graph, stretch.start), _site(graph, stretch.end)) for stretch in stretches]
    return [(stretch, start, end) for stretch, start, end in found if start is not None and end is not None]


def _doubtful(graph: Graph, stretch: Stretch, tokens: int) -> list[Op]:
    """Calls on the way that may mix tokens."""
    if stretch.start.op is None or stretch.end.op is None:
        return []
    ahead = graph.ops[stretch.start.op.index + 1 : stretch.end.op.index + 1]
    path = [op for op in ahead if op.makes[0].made_from(stretch.start) and stretch.end.made_from(op.makes[0])]
    return [op for op in path if op.name not in TOKENWISE or _picks(op) or not _by_token(op, tokens)]


def _by_token(op: Op, tokens: int) -> bool:
    """Whether the first axes of what is made, or the first one, are the tokens of the batch."""
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


def _changing(before: Tensor, width: int) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        rows = before.reshape(-1, width).clone()
        chosen = _half(len(rows)).to(rows.device)
        rows[chosen] += rows[chosen].roll(1, -1)
        return rows.view_as(x)

    return change


def _comparing(k: int, before: Tensor, width: int, reached: dict[int, float]) -> Callable[[Tensor], Tensor]:
    """Compares with the pass before, and goes on with what that one had."""

    def compare(x: Tensor) -> Tensor:
        change = (x - before).reshape(-1, width).abs().amax(-1)
        chosen = _half(len(change)).to(change.device)
        others = change[~chosen]
        reached[k] = float(others.max() / change.max().clamp_min(1e-30)) if len(others) else 0.0
        return before

    return compare
