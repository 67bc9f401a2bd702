"""Twins of LayerCDAM, LayerSmoothCDAM and LayerIntegratedCDAM, without autograd.

T (N, D) is what attention reads in a block: norm1's output, the residual stream held fixed; in a post-norm model the
block's own input, which the residual reads as well. f is the target's logit, or <l(X), l_c> where `target` is a concept
vector (D,). Numbers of equations are those of the CDAM paper. Derivatives are central differences,

    df(T)/dr ~ [8 (f(T + s r) - f(T - s r)) - (f(T + 2 s r) - f(T - 2 s r))] / 12 s,    error O(s^4).
"""

import math

import torch
from torch import Tensor, nn

from tests.references.forward import PREFIX, Pass, Sample, Target, forward, run, value

STEP = 3e-4


def cdam(model: nn.Module, sample: Sample, target: Target, layer: int = -1) -> Tensor:  # (N,)
    """Eq. (2), and eq. (4) for a concept: S_i = sum_j T_ij df/dT_ij, one derivative along T_i for each token."""
    p = forward(model, sample)
    t = p.blocks[layer].t.detach()
    return along_tokens(p, layer, target, point=t, direction=t)


def cdam_channels(model: nn.Module, sample: Sample, target: Target, layer: int = -1) -> Tensor:  # (N, D)
    """T_ij df/dT_ij before the sum over channels, one derivative for each entry: the slowest twin of all."""
    p = forward(model, sample)
    t = p.blocks[layer].t.detach()
    products = torch.zeros_like(t)
    for i in range(t.shape[0]):
        for j in range(t.shape[1]):
            unit = torch.zeros_like(t)
            unit[i, j] = 1.0
            products[i, j] = t[i, j] * derivative(p, layer, target, t, unit)
    return products


def smooth_cdam(model: nn.Module, sample: Sample, target: Target, noise: Tensor, layer: int = -1) -> Tensor:  # (N,)
    """Eq. (5), for noise (n, N, D) that is given: the noisy T' multiplies the gradient at T'."""
    p = forward(model, sample)
    t = p.blocks[layer].t.detach()
    total = torch.zeros(len(t), dtype=torch.float64)
    for e in noise:
        total += along_tokens(p, layer, target, point=t + e, direction=t + e)
    return total / len(noise)


def integrated_cdam(
    model: nn.Module, sample: Sample, target: Target, n_steps: int = 50, layer: int = -1, baseline: Tensor | None = None
) -> Tensor:  # (N,)
    """Eq. (6), a right Riemann sum from the baseline T~ (N, D), by default zero, to T."""
    p = forward(model, sample)
    t = p.blocks[layer].t.detach()
    start = torch.zeros_like(t) if baseline is None else baseline
    total = torch.zeros(len(t), dtype=torch.float64)
    for k in range(1, n_steps + 1):
        total += along_tokens(p, layer, target, point=start + k / n_steps * (t - start), direction=t - start)
    return total / n_steps


def along_tokens(p: Pass, layer: int, target: Target, point: Tensor, direction: Tensor) -> Tensor:  # (N,)
    """For each token i: sum_j direction_ij df/dT_ij at `point`, the derivative along row i of `direction`."""
    scores = torch.zeros(len(point), dtype=torch.float64)
    for i in range(len(point)):
        row = torch.zeros_like(direction)
        row[i] = direction[i]
        scores[i] = derivative(p, layer, target, point, row)
    return scores


@torch.no_grad()
def derivative(p: Pass, layer: int, target: Target, t: Tensor, r: Tensor, step: float = STEP) -> float:
    """df/dr at T = t in block `layer`, by the central difference above."""

    def f(s: float) -> float:
        return value(tail(p, layer, t + s * r), target).item()

    return (8 * (f(step) - f(-step)) - (f(2 * step) - f(-2 * step))) / (12 * step)


def tail(p: Pass, layer: int, t: Tensor) -> Pass:
    """The pass from block `layer` on, with `t` (N, D) where attention reads T."""
    layer = layer % len(p.blocks)
    if p.net.post_norm:
        return run(p.net, t, p.real, start=layer)
    return run(p.net, p.blocks[layer].x.detach(), p.real, start=layer, t=t)


def closed_form(
    model: nn.Module, sample: Sample, target: Target, hide: dict[int, list[int]] | None = None
) -> Tensor:  # (N - 1,): tokens behind CLS only
    """CDAM at the last block, for every token i but CLS, by the Jacobian of the softmax, dA_m/ds_i = A_m (d_mi - A_i):

        S_i = sum_h A_i { g . (T_i W_V) + [q . (T_i W_K) / sqrt(d)] g . (V_i - z) }

    with A, q, z the CLS row of head h, its query and its context, and g = df/dz. T_i W has no bias; V_i has. Every term
    has the factor A_i: a token that CLS does not attend to scores exactly zero. The formula needs a head that reads CLS
    alone; CLS itself has further terms, through its query and, post-norm, its residual.
    """
    p = forward(model, sample, hide)
    block, w = p.blocks[-1], p.net.blocks[-1]
    (gradient,) = torch.autograd.grad(value(p, target), block.z)  # (H, N, d)
    d = block.q.shape[-1]
    scores = torch.zeros(len(p.tokens), dtype=torch.float64)
    with torch.no_grad():
        for h in range(p.net.heads):
            rows = slice(h * d, (h + 1) * d)
            a, q, z, g = block.a[h, 0], block.q[h, 0], block.z[h, 0], gradient[h, 0]
            for i in range(PREFIX, len(p.tokens)):
                value_part = g @ (w.value.weight[rows] @ block.t[i])
                key_part = q @ (w.key.weight[rows] @ block.t[i]) / math.sqrt(d) * (g @ (block.v[h, i] - z))
                scores[i] += a[i] * (value_part + key_part)
    return scores[PREFIX:]
