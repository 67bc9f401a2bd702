"""Twins of PLUS and SkipPLUS: literal sums over start layers, each term from its own run of the sub-network f_l.

Equations (3) and (4) of the SkipPLUS paper: PLUS = sum_{l=0}^{L-1} A(f_l)(x_l), SkipPLUS the same from l = ceil(L / 2);
x_l (N, D) is the input of block l.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from tests.references.attention_gradient import updates
from tests.references.decompx import decompose
from tests.references.forward import Pass, Sample, Target, forward, run, value

Base = Callable[[Pass, Target], Tensor]  # A: the pass of f_l on x_l, and the target -> (N,)


def plus(
    model: nn.Module, sample: Sample, target: Target, base: Base, layers: Iterable[int] | None = None
) -> Tensor:  # (N,)
    """Eq. (3), over all start layers or over those given."""
    p = forward(model, sample)
    total = torch.zeros(len(p.tokens), dtype=torch.float64)
    for l in range(len(p.blocks)) if layers is None else layers:
        total += base(sub_network(p, l), target)
    return total


def skip_plus(
    model: nn.Module, sample: Sample, target: Target, base: Base, start_layer: int | None = None
) -> Tensor:  # (N,)
    """Eq. (4): start layers m, ..., L - 1 with m = ceil(L / 2), or with m given."""
    depth = len(forward(model, sample).blocks)
    m = (depth + 1) // 2 if start_layer is None else start_layer
    return plus(model, sample, target, base, range(m, depth))


def sub_network(p: Pass, l: int) -> Pass:
    """f_l run on x_l, a leaf of its own."""
    return run(p.net, p.blocks[l].x.detach().requires_grad_(), p.real, start=l)


def input_x_gradient(p: Pass, target: Target) -> Tensor:  # (N,)
    """sum_d x_{l,jd} df_l/dx_{l,jd}."""
    x = p.blocks[0].x
    (gradient,) = torch.autograd.grad(value(p, target), x)
    return (x.detach() * gradient).sum(-1)


def decompx_base(p: Pass, target: Target) -> Tensor:  # (N,)
    """Explicit DecompX without bias, from x_l on."""
    return decompose(p, target, p.start)[:-1]


def gen_att_base(p: Pass, target: Target) -> Tensor:  # (N,)
    """One-layer map of f_l: CLS row of its first update alone, which PLUS sums in place of a rollout (section 3.4)."""
    return updates(p, target)[0][0]
