"""Norms known by their values: LayerNorm and RMSNorm, as modules or written out."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from captum_vit.description.graph import Graph
from captum_vit.description.values import ADD, TIMES, Op, Value

FEWEST = 3  # rows, to fit a weight and a bias for each channel and still see what does not fit
ROWS = 64  # that are tried
MISFIT = 2e-3  # or so many roundings, where they are larger
ROUNDINGS = 4
EPS = (1e-12, 1e-6, 1e-5)
AHEAD = 40  # torch calls in which a norm written out ends


def is_norm_of(y: Value, x: Value) -> bool:
    """Whether y is, channel by channel, an affine function of x standardised over its channels."""
    width = x.tensor.shape[-1] if x.tensor.dim() else 0
    fits = y.tensor.dim() > 0 and y.tensor.shape[-1] == width and y.tensor.numel() == x.tensor.numel() > 0
    if not fits or not x.tensor.is_floating_point() or not y.tensor.is_floating_point():
        return False
    rounding = max(torch.finfo(v.tensor.dtype).eps for v in (x, y))
    before, after = (v.tensor.reshape(-1, width) for v in (x, y))
    kept = after.any(-1).nonzero().flatten()  # a mask may have set the others to zero
    kept = kept[:: len(kept) // ROWS + 1]
    before, after = before[kept].double(), after[kept].double()
    return len(before) >= FEWEST and any(
        _affine(z, after, max(MISFIT, ROUNDINGS * rounding)) for z in _standardised(before)
    )


def _standardised(x: Tensor) -> Iterator[Tensor]:  # (R, D) -> LayerNorm's and RMSNorm's
    for z in (x - x.mean(-1, keepdim=True), x):
        for eps in EPS:
            yield z / (z.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def _affine(z: Tensor, y: Tensor, misfit: float) -> bool:
    z, y = z - z.mean(0), y - y.mean(0)
    weight = (z * y).sum(0) / z.pow(2).sum(0).clamp_min(1e-12)
    return bool((y - weight * z).norm() < misfit * y.norm().clamp_min(1e-9))


def norm_behind(graph: Graph, before: Value) -> Value | None:
    """The norm of a value that is made next, with its weight and bias; None if there is none."""
    if before.op is None:
        return None
    ahead = graph.ops[before.op.index + 1 : before.op.index + AHEAD]
    made = (value for op in ahead for value in op.makes)
    found = next(
        (v.root for v in made if v.made_from(before) and v.root is not before.root and is_norm_of(v, before)), None
    )
    while found is not None:
        weighed = [op for _, op in found.readers() if op.name in TIMES | ADD and _has_weight(graph, op)]
        further = [op.makes[0].root for op in weighed if is_norm_of(op.makes[0], before)]
        if not further:
            break
        found = further[0]
    return found


def _has_weight(graph: Graph, op: Op) -> bool:
    """Whether a value meets a weight or a bias; a mere number may scale the stream behind a norm."""
    return len(op.takes) == 2 and sum(map(graph.depends, op.takes)) == 1


def norm_module(graph: Graph, before: Value, after: Value | None = None) -> nn.Module | None:
    """The innermost module that takes one value and gives another, or else a norm of it; None where there is none."""
    taking = [c for c in reversed(graph.taking.get(before.root, [])) if c.gives]
    exact = [c for c in taking if after is not None and c.gives[0].has_numbers_of(after)]
    given = exact or [c for c in taking if not c.gives[0].has_numbers_of(before) and is_norm_of(c.gives[0], before)]
    return given[0].module if given else None
