"""Twin of DecompX: the logit split into one part per token, carried explicitly through every layer.

From block `start` on, each vector y_i of the network is kept as a sum of parts, y_i = sum_k c_{i<-k} + bias part, where
c_{i<-k} (D,) is what token k of x_start contributes. All parts of one source k form C_k (N, D), at first x_k in row k
and zero elsewhere. Each layer is applied to C_k with its nonlinearity frozen at the full vectors:

- linear: C W^T. Biases go into the bias part alone ("w/o bias", the setting of SkipPLUS).
- LayerNorm: (C - mean_d C) / sqrt(var(y) + eps) * gamma, the deviation that of the full vector y.
- attention: sum_h A^h (C W_V^h) W_O^h with A fixed.
- activation ("zero origin"): C * act(z) / z, with z the full pre-activation; GELU in the MLP, tanh in BERT's pooler.

The map is the part of the logit that comes from each token; with the biases' part it sums to the logit. Padding reaches
no token, so its part is zero.
"""

import torch
from torch import Tensor, nn

from tests.references.forward import Block, BlockWeights, Linear, Network, Norm, Pass, Sample, forward, gelu, run


def decompx(model: nn.Module, sample: Sample, target: int, start: int = 0) -> Tensor:  # (N,)
    """DecompX without bias of the sub-network that starts at the input of block `start`."""
    return decompose(forward(model, sample), target, start)[:-1]


def decompose(p: Pass, target: int, start: int = 0) -> Tensor:  # (N + 1,)
    """All parts of the logit: each token's and, last, that of the biases from block `start` on."""
    x = p.blocks[start - p.start].x.detach()
    with torch.no_grad():
        sub = run(p.net, x, p.real, start)
        biases = bias_part(sub, torch.ones_like(x[:, :1]))
        return torch.stack([*(token_part(sub, x, k) for k in range(len(x))), biases])[:, target]


def token_part(p: Pass, x: Tensor, k: int) -> Tensor:  # (C,)
    """What token k contributes to all logits."""
    c = torch.zeros_like(x)
    c[k] = x[k]
    return carried(p, c, torch.zeros_like(x[:, :1]))


def bias_part(p: Pass, where: Tensor) -> Tensor:  # (C,)
    """What the biases contribute to all logits that are added to the tokens where `where` (N, 1) is one."""
    return carried(p, torch.zeros_like(p.tokens), where)


def carried(p: Pass, c: Tensor, biased: Tensor) -> Tensor:  # (C,)
    """The part C (N, D) of the tokens, carried through all layers, which add biases where `biased` (N, 1) is one."""
    for l, block in enumerate(p.blocks, p.start):
        c = through_block(p.net, p.net.blocks[l], block, c, biased)
    return through_readout(p, c[0], biased[0])


def through_block(net: Network, w: BlockWeights, block: Block, c: Tensor, biased: Tensor) -> Tensor:  # (N, D)
    """C at the output of a block from C at its input: norms before the sub-layers, or behind the residual sums."""
    if net.post_norm:
        c = normed(w.norm1, block.x + block.attended, c + attended(w, block, c, biased), biased)
        return normed(w.norm2, block.mid + block.ffn, c + fed_forward(w, block, c, biased), biased)
    c = c + attended(w, block, normed(w.norm1, block.x, c, biased), biased)
    return c + fed_forward(w, block, normed(w.norm2, block.mid, c, biased), biased)


def attended(w: BlockWeights, block: Block, c: Tensor, biased: Tensor) -> Tensor:  # (N, D)
    heads, _, d = block.v.shape
    total = torch.zeros_like(c)
    for h in range(heads):
        rows = slice(h * d, (h + 1) * d)
        v = c @ w.value.weight[rows].T + biased * w.value.bias[rows]
        for i in range(len(c)):
            z = block.a[h, i] @ v  # sum_j A_ij v_j
            total[i] += w.project.weight[:, rows] @ z
    return total + biased * w.project.bias


def fed_forward(w: BlockWeights, block: Block, c: Tensor, biased: Tensor) -> Tensor:  # (N, D)
    slope = gelu(block.pre) / block.pre
    return linear(w.fc2, slope * linear(w.fc1, c, biased), biased)


def through_readout(p: Pass, c: Tensor, biased: Tensor) -> Tensor:  # (C,)
    """Final norm of a ViT, or pooler and tanh of BERT, then the classifier, for the CLS row c (D,)."""
    if p.net.norm is not None:
        c = normed(p.net.norm, p.tokens[0], c, biased)
    if p.net.pooler is not None:
        z = p.net.pooler(p.tokens[0])
        c = torch.tanh(z) / z * linear(p.net.pooler, c, biased)
    return linear(p.net.classifier, c, biased)


def linear(m: Linear, c: Tensor, biased: Tensor) -> Tensor:
    return c @ m.weight.T + biased * m.bias


def normed(m: Norm, full: Tensor, c: Tensor, biased: Tensor) -> Tensor:
    part = (c - c.mean(-1, keepdim=True)) / m.deviation(full) * m.weight
    return part + biased * m.bias
