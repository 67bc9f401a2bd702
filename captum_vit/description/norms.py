"""Norms known by their values: LayerNorm and RMSNorm, as modules or written out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_vit.description.values import Graph, Value

FEWEST = 3  # rows, to fit a weight and a bias for each channel and still see what does not fit
MISFIT = 2e-3  # half precision rounds so much
AHEAD = 40  # torch calls in which a norm written out ends
SCALE_AND_SHIFT = {*"mul __mul__ __rmul__ mul_ add __add__ __radd__ add_".split()}


def is_norm_of(y: Value, x: Value) -> bool:
    """Whether y is, channel by channel, an affine function of x standardised over its channels."""
    width = x.tensor.shape[-1] if x.tensor.dim() else 0
    fits = y.tensor.dim() > 0 and y.tensor.shape[-1] == width and y.tensor.numel() == x.tensor.numel() > 0
    if not fits or not x.tensor.is_floating_point() or not y.tensor.is_floating_point():
        return False
    before, after = (v.tensor.double().reshape(-1, width) for v in (x, y))
    kept = after.any(-1)  # a mask may have set the others to zero
    before, after = before[kept], after[kept]
    return len(before) >= FEWEST and any(_affine(z, after) for z in _standardised(before))


def _standardised(x: Tensor) -> tuple[Tensor, Tensor]:  # (R, D) -> LayerNorm's and RMSNorm's
    centred = x - x.mean(-1, keepdim=True)
    return tuple(z / (z.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() for z in (centred, x))  # type: ignore[return-value]


def _affine(z: Tensor, y: Tensor) -> bool:
    z, y = z - z.mean(0), y - y.mean(0)
    weight = (z * y).sum(0) / z.pow(2).sum(0).clamp_min(1e-12)
    return bool((y - weight * z).norm() < MISFIT * y.norm().clamp_min(1e-9))


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
        further = [
            op.makes[0].root
            for _, op in found.readers()
            if op.name in SCALE_AND_SHIFT and sum(map(graph.depends, op.takes)) == 1 and is_norm_of(op.makes[0], before)
        ]
        if not further:
            break
        found = further[0]
    return found


def norm_module(graph: Graph, before: Value, after: Value | None = None) -> nn.Module | None:
    """The module that takes one value and gives another, or a norm of it: the innermost; None where there is none."""
    taking = [c for c in graph.calls if c.takes and c.gives and c.takes[0].has_numbers_of(before)]
    if after is not None:
        return next((c.module for c in reversed(taking) if c.gives[0].has_numbers_of(after)), None)
    return next(
        (c.module for c in taking if not c.gives[0].has_numbers_of(before) and is_norm_of(c.gives[0], before)), None
    )
