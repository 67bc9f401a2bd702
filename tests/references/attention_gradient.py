"""Twins of the methods that weigh attention or tokens by gradients: GenAtt, its one-layer map, GradSAM, AttnGrad,
AttCAM, CAT, AttIxG, AttCAT.

F is the logit of the target (or its probability, with `score="prob"`); gradients are autograd's, on the forward written
by hand. A^{l,h} (N, N) is attention, x_l (N, D) the input of block l.
"""

import torch
from torch import Tensor, nn

from tests.references.forward import PREFIX, Block, Pass, Sample, Target, forward, value


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


def half_rollout(model: nn.Module, sample: Sample, target: Target) -> Tensor:  # (N,)
    """The SkipPLUS paper's way to write GenAtt: the CLS row of prod_l (I + A_bar^l) / 2."""
    p = forward(model, sample)
    product = torch.eye(len(p.tokens), dtype=torch.float64)
    for a_bar in updates(p, target):
        product = (0.5 * torch.eye(len(a_bar)) + 0.5 * a_bar) @ product
    return product[0]


def grad_sam(model: nn.Module, sample: Sample, target: Target, rows: str = "cls") -> Tensor:  # (N,)
    """GradSAM as the SkipPLUS paper uses it (section 3.4): sum_l of one-layer maps; or of the means of their rows."""
    p = forward(model, sample)
    total = 0
    for a_bar in updates(p, target):
        total = total + (a_bar[0] if rows == "cls" else sum(a_bar[i] for i in real_tokens(p)) / len(real_tokens(p)))
    return total


def attn_grad(model: nn.Module, sample: Sample, target: Target, layer: int = -1, heads: str = "mean") -> Tensor:  # (N,)
    """1/H sum_h dF/dA^{l,h}[CLS, j], or of its absolute values; zero at padding."""
    p = forward(model, sample)
    (gradient,) = torch.autograd.grad(value(p, target), p.blocks[layer].a)
    total = torch.zeros(len(p.tokens), dtype=torch.float64)
    for g in gradient:
        total += (g[0].abs() if heads == "abs" else g[0]) / len(gradient)
    return total * p.real


def att_cam(model: nn.Module, sample: Sample, target: Target, layer: int = -1) -> Tensor:  # (N,)
    """Chefer et al. (2021a), "GradCAM": 1/H sum_h w_h A^{l,h}[CLS, j], w_h the row's mean gradient over patches."""
    p = forward(model, sample)
    a = p.blocks[layer].a
    (gradient,) = torch.autograd.grad(value(p, target), a)
    patches = [j for j in real_tokens(p) if p.net.post_norm or j >= PREFIX]  # a text has no prefix
    total = torch.zeros(len(p.tokens), dtype=torch.float64)
    for h in range(len(a)):
        w = sum(gradient[h, 0, j] for j in patches) / len(patches)
        total += w * a[h, 0].detach() / len(a)
    return total


def real_tokens(p: Pass) -> list[int]:
    """The indices of all tokens but padding."""
    return [i for i in range(len(p.real)) if p.real[i]]


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


def att_ixg(
    model: nn.Module, sample: Sample, target: Target, layer: int = 0, alignment: str = "output"
) -> Tensor:  # (N,)
    """AttnFrom_j sum_d x_jd dF/dx_jd in block `layer`, for x the tokens that leave it, or those that enter it."""
    return _aligned(forward(model, sample), target, alignment)[layer]


def att_cat(
    model: nn.Module, sample: Sample, target: Target, alignment: str = "output", start: int = 0
) -> Tensor:  # (N,)
    """Qiang et al. (2022): sum_l of `att_ixg`."""
    total = 0
    for term in _aligned(forward(model, sample), target, alignment)[start:]:
        total = total + term
    return total


def _aligned(p: Pass, target: Target, alignment: str) -> list[Tensor]:  # each (N,)
    tokens = [b.out if alignment == "output" else b.x for b in p.blocks]
    terms = []
    for block, x, gradient in zip(p.blocks, tokens, torch.autograd.grad(value(p, target), tokens), strict=True):
        terms.append(attention_from(p, block) * (x.detach() * gradient).sum(1))
    return terms


def attention_from(p: Pass, block: Block) -> Tensor:  # (N,)
    """AttnFrom_j = 1/(H N) sum_h sum_i A^h_ij, the sum over all rows but padding."""
    heads, rows = len(block.a), real_tokens(p)
    total = torch.zeros(len(p.real), dtype=torch.float64)
    for h in range(heads):
        for i in rows:
            total += block.a[h, i].detach() / (heads * len(rows))
    return total
