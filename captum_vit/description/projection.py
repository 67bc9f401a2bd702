"""How the merged heads reach the stream: the output projection, tried for linearity, and a scale for each channel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_vit.description.graph import Graph
from captum_vit.description.stream import Layer
from captum_vit.description.values import FACTOR, PROJECT, RESHAPE, TIMES, Call, Op, Value
from captum_vit.errors import MODEL_ERRORS
from captum_vit.sites.nests import first_tensor

LINEAR = 1e-3  # what may be missing, as a share, or so many roundings, where they are larger
ROUNDINGS = 4
ROWS = 256  # that are compared
SCALED = 1e-4
PLAIN = (Tensor, nn.Parameter)  # of another kind than these, weights may be rounded with what they meet


class Projection(NamedTuple):
    """The layer that maps the merged heads, one factor for each channel, and what else there is in its place."""

    module: nn.Module | None
    scale: Callable[[], Tensor] | None
    between: str


def projection(graph: Graph, layer: Layer) -> Projection:
    """Of the innermost linear map of the merged heads whose result gives the branch, up to one factor a channel."""
    tried, failed = _candidates(graph, layer)
    for module, given, made in reversed(tried):
        if made.has_numbers_of(layer.branch):
            scale = None
        else:
            fits, scale = (
                _scale_of(graph, made, layer.branch) if _only_multiplied(graph, made, layer.branch) else (False, None)
            )
            if not fits:
                continue
        between = "a factor before the addition" if layer.scaled else _other_order(given, layer)
        if isinstance(scale, partial) and scale.func is torch.clone and graph.decides:
            between = between or "a factor that may be another one for other inputs"
        return Projection(None if between else module, None if between else scale, between)
    start = tried[-1][2] if tried else layer.attention.context
    return Projection(None, None, failed or _named(graph, start, layer.branch))


def _candidates(graph: Graph, layer: Layer) -> tuple[list[tuple[nn.Module, Value, Value]], str]:
    """Linear modules that take the merged heads, outer ones first: each with what it was given and made.

    And why the innermost module cannot be tried, if it cannot; outer ones may want more than the heads.
    """
    context, branch = layer.attention.context, layer.branch
    called = [c for c in graph.calls if c.given is not None and c.given.has_numbers_of(context)]
    found = [(c.module, c.given or context, c.gives[0]) for c in called if _maps(graph, c, context, branch)]
    assert branch.op is not None
    for op in graph.ops[layer.attention.op.index + 1 : branch.op.index + 1]:  # weights that are read past their module
        if op.name == "linear" and op.takes[0].has_numbers_of(context) and branch.made_from(op.makes[0]):
            owner = graph.owner(op.takes[1].tensor)
            if owner is not None and all(owner is not module for module, *_ in found):
                found.append((owner, op.takes[0], op.makes[0]))
    linear, failed = [], ""
    seen = {c.module for c in called if c.given is not None and _is_seen_linear(graph, c.given, c)}
    for module, given, made in found:
        try:
            failed = ""
            if module in seen or _is_linear(module, given.tensor):
                linear.append((module, given, made))
        except MODEL_ERRORS as error:
            failed = f"{type(module).__name__}, which refuses random tokens with {type(error).__name__}: {error},"
    return linear, failed


def _maps(graph: Graph, call: Call, context: Value, branch: Value) -> bool:
    if not call.gives:
        return False
    made = call.gives[0]
    on_the_path = made.made_from(context) and branch.made_from(made) and not made.has_numbers_of(context)
    return on_the_path and any(op.name in PROJECT for op in graph.ops[call.start : call.end])


@torch.no_grad()
def _is_linear(module: nn.Module, like: Tensor) -> bool:
    r"""Whether :math:`f(a) + f(b) - f(0) = f(a + b)` for two random inputs."""
    generator = torch.Generator().manual_seed(0)
    weight = getattr(module, "weight", None)  # under autocast of the model's own it is wider than what it is given
    kind = weight if isinstance(weight, Tensor) and weight.is_floating_point() else like
    shape = like.shape  # hooks may know no other
    a, b = (torch.randn(shape, generator=generator).to(like.device, kind.dtype) for _ in range(2))

    def f(x: Tensor) -> Tensor:
        y = first_tensor(module(x))
        return torch.full_like(x, torch.nan) if y is None else y.double()

    zero, of_a = f(torch.zeros_like(a)), f(a)
    missing = of_a + f(b) - zero - f(a + b)
    return bool(missing.norm() <= max(LINEAR, _rounding(like)) * (of_a - zero).norm())


def _is_seen_linear(graph: Graph, given: Value, call: Call) -> bool:
    """Whether the pass shows it: all that a call makes of what it is given are shapes, and one product with weights."""
    on_the_path = [op for op in graph.ops[call.start : call.end] if op.makes[0].made_from(given)]
    products = [op for op in on_the_path if op.name == "linear"]
    return (
        len(products) == 1
        and _takes_one(call.module)
        and all(op.name in RESHAPE or op is products[0] for op in on_the_path)
        and all(type(v.tensor) in PLAIN and not graph.depends(v) for v in products[0].takes[1:])
    )


def _takes_one(module: nn.Module) -> bool:
    """Whether its forward can be called with one tensor."""
    try:
        signature(module.forward).bind(None)
    except (TypeError, ValueError):  # it cannot, or has no signature
        return False
    return True


def _rounding(like: Tensor) -> float:
    return ROUNDINGS * torch.finfo(like.dtype).eps


def _step(like: Tensor) -> float:
    """Between numbers near zero, such as a branch that a tiny LayerScale leaves in float16."""
    return torch.finfo(like.dtype).smallest_normal * torch.finfo(like.dtype).eps


def _only_multiplied(graph: Graph, made: Value, branch: Value) -> bool:
    """Whether all that happens to one value on its path to another is to be multiplied by what is no token."""
    for op in _path(graph, made, branch):
        tokens = sum(value.made_from(made) for value in op.takes)
        if op.name not in FACTOR | RESHAPE or tokens != 1 or sum(map(graph.depends, op.takes)) != 1:
            return False
    return True


def _rows(made: Value, branch: Value) -> tuple[Tensor, Tensor] | None:  # shapes: (R, D) each
    """Some rows of a value, and of what it becomes; None where they do not go together."""
    wanted = branch.tensor
    y = next((v.tensor for v in made.root.same if v.tensor.shape == wanted.shape), made.tensor)
    if y.numel() != wanted.numel() or y.shape[-1] != wanted.shape[-1]:
        return None
    rows, gained = (t.reshape(-1, wanted.shape[-1]) for t in (y, wanted))
    some = slice(None, None, len(rows) // ROWS + 1)
    return rows[some].double(), gained[some].double()


def _scale_of(graph: Graph, made: Value, branch: Value) -> tuple[bool, Callable[[], Tensor] | None]:
    """Whether one factor for each channel makes the branch, and what gives these factors; None where they are one.

    The model's own tensor, where it multiplies by one, whatever it holds now: weights may be loaded later.
    """
    found = _rows(made, branch)
    if found is None:
        return False, None
    rows, gained = found
    fits = max(SCALED, _rounding(branch.tensor)) * gained.norm() + _step(branch.tensor) * gained.numel() ** 0.5
    for factor in _multiplied_by(graph, made, branch):
        if (rows * factor.flatten().double() - gained).norm() <= fits:
            return True, graph.own(factor) or partial(torch.clone, factor.detach().flatten())
    factors = (rows * gained).sum(0) / rows.pow(2).sum(0).clamp_min(1e-30)  # shape: (D,)
    is_one = bool((factors - 1).abs().max() < 1e-5)
    return bool((factors * rows - gained).norm() < fits), None if is_one else partial(torch.clone, factors)


def _multiplied_by(graph: Graph, made: Value, branch: Value) -> list[Tensor]:
    """Tensors with a number for each channel, not made of the inputs, by which one value becomes another."""
    values = (value for op in _path(graph, made, branch) if op.name in TIMES for value in op.takes)
    tensors = [v.root.tensor for v in values if not graph.depends(v)]
    return [tensor for tensor in tensors if tensor.numel() == branch.tensor.shape[-1]]


def _other_order(given: Value, layer: Layer) -> str:
    """The projection must be given each token's heads side by side; what there is instead, or nothing."""
    heads, x = layer.attention.heads, given.tensor
    if heads is not None and heads.numel() == x.numel() and x.shape[-1] % heads.shape[-1] == 0:
        merged = heads.reshape(-1, x.shape[-1] // heads.shape[-1], *heads.shape[-2:]).transpose(1, 2).flatten()
        if any(torch.equal(rows.flatten(), merged) for rows in ([x, x.transpose(0, 1)] if x.dim() == 3 else [x])):
            return ""
    return "a merge that does not lay the heads of each token side by side"


def _named(graph: Graph, start: Value, branch: Value) -> str:
    """The torch calls between two values that do more than to change a shape."""
    others = [op.name for op in _path(graph, start, branch) if op.name not in RESHAPE]
    obstacles = [name for name in others if name not in PROJECT]
    return ", ".join(dict.fromkeys(obstacles or others)) or "another map than a linear layer"


def _path(graph: Graph, start: Value, end: Value) -> list[Op]:
    """The torch calls that make one value of another."""
    if start.op is None or end.op is None:
        return []
    ops = graph.ops[start.op.index + 1 : end.op.index + 1]
    return [op for op in ops if op.makes[0].made_from(start) and end.made_from(op.makes[0])]
