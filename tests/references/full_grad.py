"""Twins of FullGrad and FullGrad+: every bias is an input of its own, one pass of the network for each.

Equations (5) and (6) of the SkipPLUS paper:

    FullGrad+ = sum_{l >= m} IxG(f_l)(x_l) + sum_{l >= m} sum_{b in B_l} IxG(f_b)(b)

f_b is the network as a function of bias b, which stands once for every token to which it is added: b (N, out) with
equal rows. B_{L-1} holds the biases behind the blocks too; they are added to the CLS row alone. FullGrad takes the
first sum at l = m alone.

Under the frozen rule nothing is differentiated: IxG is the explicit decomposition of decompx.py, and what the biases
contribute at token i is carried through all layers as one more source.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from tests.references.decompx import bias_part as carried_biases
from tests.references.decompx import decompose
from tests.references.forward import BlockWeights, Network, Pass, Sample, forward, run
from tests.references.plus import input_x_gradient, sub_network

PARTS = ("query", "key", "value", "project", "norm1", "fc1", "fc2", "norm2")
READOUT = ("norm", "pooler", "classifier")


def full_grad(model: nn.Module, sample: Sample, target: int, start: int = 0, rule: str = "grad") -> Tensor:  # (N,)
    sub = sub_network(forward(model, sample), start)
    return token_part(sub, target, rule) + bias_part(sub, target, rule)


def full_grad_plus(model: nn.Module, sample: Sample, target: int, start: int = 0, rule: str = "grad") -> Tensor:  # (N,)
    p = forward(model, sample)
    total = bias_part(sub_network(p, start), target, rule)
    for l in range(start, len(p.blocks)):
        total += token_part(sub_network(p, l), target, rule)
    return total


def token_part(p: Pass, target: int, rule: str) -> Tensor:  # (N,)
    return input_x_gradient(p, target) if rule == "grad" else decompose(p, target, p.start)[:-1]


def bias_part(p: Pass, target: int, rule: str) -> Tensor:  # (N,)
    return gradient_biases(p, target) if rule == "grad" else frozen_biases(p, target)


def gradient_biases(p: Pass, target: int) -> Tensor:  # (N,)
    """sum_b IxG(f_b)(b) of all biases from the first block of the pass on."""
    x = p.blocks[0].x.detach()
    total = torch.zeros(len(x), dtype=x.dtype)
    for l in range(p.start, len(p.net.blocks)):
        for part in PARTS:
            bias = getattr(p.net.blocks[l], part).bias.detach().expand(len(x), -1).clone().requires_grad_()
            q = run(_with_block_bias(p.net, l, part, bias), x, p.real, p.start)
            total += (bias * torch.autograd.grad(q.logits[target], bias)[0]).sum(-1).detach()
    for part in READOUT:
        if getattr(p.net, part) is not None:
            bias = getattr(p.net, part).bias.detach().clone().requires_grad_()
            q = run(replace(p.net, **{part: getattr(p.net, part)._replace(bias=bias)}), x, p.real, p.start)
            total[0] += (bias * torch.autograd.grad(q.logits[target], bias)[0]).sum().detach()
    return total


def _with_block_bias(net: Network, l: int, part: str, bias: Tensor) -> Network:
    block: BlockWeights = replace(net.blocks[l], **{part: getattr(net.blocks[l], part)._replace(bias=bias)})
    return replace(net, blocks=[*net.blocks[:l], block, *net.blocks[l + 1 :]])


def frozen_biases(p: Pass, target: int) -> Tensor:  # (N,)
    """For every token the part of the logit that comes from the biases added there; token 0 is read by the head."""
    x = p.blocks[0].x.detach()
    parts = []
    with torch.no_grad():
        for i in range(len(x)):
            there = (torch.arange(len(x)) == i)[:, None].to(x.dtype)
            parts.append(carried_biases(p, there)[target])
    return torch.stack(parts)
