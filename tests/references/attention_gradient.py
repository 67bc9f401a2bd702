"""Twins of the methods that weigh attention or tokens by gradients: GenAtt, its one-layer map, GradSAM, CAT.

F is the logit of the target (or its probability, with `score="prob"`); gradients are autograd's, on the forward written
by hand. A^{l,h} (N, N) is attention, x_l (N, D) the input of block l.
"""

import torch
from torch import Tensor, nn

from tests.references.forward import Pass, Sample, Target, forward, value


def gen_att(model: nn.Module, sample: Sample, target: Target, score: str = "logit") -> Tensor:  # (N,)
    """Chefer et al. (2021b): R <- R + A_bar^l R from R = I, its CLS row; A_bar^l as in `updates`."""
    p = forward(model, sample)
    relevance = torch.eye(len(p.tokens), dtype=torch.float64)
    for a_bar in updates(p, target, score):
        relevance = relevance + a_bar @ relevance
    return relevance[0]


def one_layer_gen_att(model: nn.Module, sample: Sample, target: Target, layer: int) -> Tensor:  # (N,)
    """CLS row of A_bar^l alone: what block `layer` adds, without the identity and without the other blocks."""
    return updates(forward(model, sample), target)[layer][0]


def grad_sam(model: nn.Module, sample: Sample, target: Target) -> Tensor:  # (N,)
    """GradSAM as the SkipPLUS paper uses it (section 3.4): sum_l of the one-layer maps."""
    total = 0
    for a_bar in updates(forward(model, sample), target):
        total = total + a_bar[0]
    return total


def updates(p: Pass, target: Target, score: str = "logit") -> list[Tensor]:  # each (N, N)
    """A_bar^l = 1/H sum_h (dF/dA^{l,h} * A^{l,h})^+, for every block of the pass."""
    gradients = torch.autograd.grad(value(p, target, score), [b.a for b in p.blocks])
    result = []
    for block, gradient in zip(p.blocks, gradients, strict=True):
        a_bar = torch.zeros_like(gradient[0])
        for h in range(len(gradient)):
            a_bar += (gradient[h] * block.a[h].detach()).clamp(min=0) / len(gradient)
        result.append(a_bar)
    return result


def cat(model: nn.Module, sample: Sample, target: Target) -> Tensor:  # (N,)
    """CAT_j = sum_l sum_d x_{l,jd} dF/dx_{l,jd}, at the inputs of the blocks, l = 0, ..., L - 1."""
    p = forward(model, sample)
    gradients = torch.autograd.grad(value(p, target), [b.x for b in p.blocks])
    total = torch.zeros(len(p.tokens), dtype=torch.float64)
    for block, gradient in zip(p.blocks, gradients, strict=True):
        for d in range(gradient.shape[1]):
            total += block.x[:, d].detach() * gradient[:, d]
    return total
