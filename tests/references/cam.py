"""Twins of the token CAMs: one channel and one token at a time.

x (N, D) are the tokens that attention reads in a block (norm1's output, or a post-norm block's input) and g (N, D) the
gradient of the target there, by autograd on the forward written by hand. Sums over tokens run over those that count:
all but padding, and without prefix tokens where `include_prefix` is False.
"""

import torch
from torch import Tensor, nn

from tests.references.forward import PREFIX, Pass, Sample, Target, forward, value


def hires_cam(model: nn.Module, sample: Sample, target: Target, layer: int = -1) -> Tensor:  # (N,)
    """S_i = sum_d g_id x_id."""
    p, x, g = tokens_and_gradient(model, sample, target, layer)
    return each(p, x, lambda i, d: g[i, d] * x[i, d])


def grad_cam_element_wise(model: nn.Module, sample: Sample, target: Target, layer: int = -1) -> Tensor:  # (N,)
    """S_i = sum_d max(g_id x_id, 0)."""
    p, x, g = tokens_and_gradient(model, sample, target, layer)
    return each(p, x, lambda i, d: max(g[i, d] * x[i, d], 0.0))


def layer_cam(model: nn.Module, sample: Sample, target: Target, layer: int = -1) -> Tensor:  # (N,)
    """S_i = sum_d max(g_id, 0) x_id."""
    p, x, g = tokens_and_gradient(model, sample, target, layer)
    return each(p, x, lambda i, d: max(g[i, d], 0.0) * x[i, d])


def grad_cam(
    model: nn.Module, sample: Sample, target: Target, layer: int = -1, include_prefix: bool = True
) -> Tensor:  # (N,)
    """S_i = sum_d w_d x_id, w_d = 1/N sum_i g_id."""
    p, x, g = tokens_and_gradient(model, sample, target, layer)
    rows = counted(p, include_prefix)
    w = [sum(g[i, d] for i in rows) / len(rows) for d in range(x.shape[1])]
    return each(p, x, lambda i, d: w[d] * x[i, d])


def x_grad_cam(
    model: nn.Module, sample: Sample, target: Target, layer: int = -1, include_prefix: bool = True,
    absolute: bool = True,
) -> Tensor:  # (N,)  # fmt: skip
    """w_d = sum_i |x_id| g_id / sum_i |x_id|; with `absolute=False` sum_i x_id g_id / sum_i x_id."""
    p, x, g = tokens_and_gradient(model, sample, target, layer)
    rows, a = counted(p, include_prefix), x.abs() if absolute else x
    w = [sum(a[i, d] * g[i, d] for i in rows) / (sum(a[i, d] for i in rows) + 1e-7) for d in range(x.shape[1])]
    return each(p, x, lambda i, d: w[d] * x[i, d])


def grad_cam_plus_plus(
    model: nn.Module, sample: Sample, target: Target, layer: int = -1, include_prefix: bool = True,
    absolute: bool = True,
) -> Tensor:  # (N,)  # fmt: skip
    """Eq. (13) and (19): w_d = sum_i alpha_id max(g_id, 0), alpha_id = g^2 / (2 g^2 + sum_k |x_kd| g^3)."""
    p, x, g = tokens_and_gradient(model, sample, target, layer)
    rows, a = counted(p, include_prefix), x.abs() if absolute else x
    w = []
    for d in range(x.shape[1]):
        total = 0.0
        for i in rows:
            if g[i, d] > 0:
                alpha = g[i, d] ** 2 / (2 * g[i, d] ** 2 + sum(a[k, d] for k in rows) * g[i, d] ** 3)
                total = total + alpha * g[i, d]
        w.append(total)
    return each(p, x, lambda i, d: w[d] * x[i, d])


def tokens_and_gradient(model: nn.Module, sample: Sample, target: Target, layer: int) -> tuple[Pass, Tensor, Tensor]:
    p = forward(model, sample)
    t = p.blocks[layer].t
    (gradient,) = torch.autograd.grad(value(p, target), t)
    return p, t.detach(), gradient


def counted(p: Pass, include_prefix: bool) -> list[int]:
    """The tokens over which a channel's weight is taken; a text has no prefix."""
    first = 0 if include_prefix or p.net.post_norm else PREFIX
    return [i for i in range(first, len(p.real)) if p.real[i]]


def each(p: Pass, x: Tensor, term) -> Tensor:  # (N,)
    """For each token but padding the sum over channels of `term(i, d)`."""
    scores = torch.zeros(len(x), dtype=torch.float64)
    for i in range(len(x)):
        if p.real[i]:
            for d in range(x.shape[1]):
                scores[i] += term(i, d)
    return scores


def eigen_cam(model: nn.Module, sample: Sample, target: int, layer: int = -1) -> Tensor:  # (N,)
    """S_i = (x_i - mean) . v, v the first singular vector of the patches less their mean; the largest positive."""
    p = forward(model, sample)
    x = p.blocks[layer].t.detach()
    patches = [i for i in range(len(x)) if p.real[i] and (p.net.post_norm or i >= PREFIX)]
    x = x - sum(x[i] for i in patches) / len(patches)
    v = torch.linalg.svd(x[patches]).Vh[0]
    largest = max((x[i] @ v for i in patches), key=abs)
    return torch.stack([x[i] @ v * largest.sign() for i in range(len(x))]) * p.real
