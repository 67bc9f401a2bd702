"""Twins of gradients at the input: at the pixels of an image, at the tokens x_0 that enter block 0 of a text; and
at the tokens that enter a block, of both.

A patch's score is the sum over its pixels and channels; CLS, under which no pixel lies, gets zero. F is the target's
logit.
"""

from collections.abc import Callable

import torch
from numpy import float32
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn

from tests.references.forward import Pass, Sample, Target, embed, forward, read, run, value

Scored = tuple[Tensor, Callable[[Tensor], Tensor]]  # the input, and the target's score as a function of it


def saliency(model: nn.Module, sample: Sample, target: Target) -> Tensor:  # (N,)
    """|dF/dx|."""
    x, score = scored(model, sample, target)
    return tokens(model, sample, gradient(score, x).abs())


def input_x_gradient(model: nn.Module, sample: Sample, target: Target) -> Tensor:  # (N,)
    """x dF/dx."""
    x, score = scored(model, sample, target)
    return tokens(model, sample, x * gradient(score, x))


def integrated_gradients(model: nn.Module, sample: Sample, target: Target, n_steps: int = 50) -> Tensor:  # (N,)
    """x times the integral over a in [0, 1] of dF/dx at a x, by Gauss and Legendre's rule (Captum's default).

    Captum holds the rule's weights in float32, and so does the twin.
    """
    x, score = scored(model, sample, target)
    total = torch.zeros_like(x)
    for node, weight in zip(*leggauss(n_steps), strict=True):
        total += float(float32(weight / 2)) * gradient(score, (1 + node) / 2 * x)
    return tokens(model, sample, x * total)


def vanilla_grad(model: nn.Module, sample: Sample, target: Target) -> Tensor:  # (N,)
    """||dF/dx_i||_2 at the tokens that enter block 0."""
    return vanilla_grad_base(forward(model, sample), target)


def vanilla_grad_base(p: Pass, target: Target) -> Tensor:  # (N,)
    """The same at the block where the pass starts."""
    (gradient,) = torch.autograd.grad(value(p, target), p.blocks[0].x)
    return torch.stack([sum(slope**2 for slope in row) ** 0.5 for row in gradient])


def gradient(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(score(x), x)[0]


def scored(model: nn.Module, sample: Sample, target: Target) -> Scored:
    """An image's pixels, or a text's tokens."""
    net = read(model)
    if isinstance(sample, Tensor):
        return sample, lambda pixels: value(run(net, *embed(model, pixels)), target)
    x, real = embed(model, sample)
    return x.detach(), lambda x: value(run(net, x, real), target)


def tokens(model: nn.Module, sample: Sample, relevance: Tensor) -> Tensor:  # (N,)
    if not isinstance(sample, Tensor):
        return relevance.sum(1)
    p = model.patch_embed.proj.kernel_size[0]
    scores = [torch.zeros((), dtype=torch.float64)]
    for top in range(0, sample.shape[1], p):
        for left in range(0, sample.shape[2], p):
            scores.append(relevance[:, top : top + p, left : left + p].sum())
    return torch.stack(scores)
