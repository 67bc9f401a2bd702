"""Twin of DecompX with its biases shared out: the vectors of every pair of tokens, explicitly.

C (N, N, D) holds what token k contributes to token i, C[i, k], at first x_k on the diagonal. Nonlinearities are frozen
as in `decompx.py`. Where a layer adds a bias b to token i, source k gets w_ik b, with weights that sum to 1 over k:

- "absdot", the default of DecompX's authors: |C_ik . b|; "dot": C_ik . b, which may be negative
- "abssim": |cos(C_ik, b)|; "norm": ||C_ik||_2; "equal": 1, each of these only where C_ik is not zero
- "cls": all of it to the first token; "none": to nobody

The bias of the values reaches each token whole, as rows of A sum to 1; it is added with that of the output projection,
W_O b_V + b_O, behind the residual sum. (The authors' code leaves b_V with the tokens in the first layer alone.)
"""

import torch
from torch import Tensor, nn

from tests.references.forward import Block, BlockWeights, Linear, Network, Norm, Pass, Sample, forward, gelu, run

BIASES = ("none", "absdot", "abssim", "norm", "equal", "cls", "dot")


def decompx_with_bias(model: nn.Module, sample: Sample, target: int, bias: str, start: int = 0) -> Tensor:  # (N,)
    """Parts of the logit of `target`; those of all tokens sum to it, unless `bias` is "none"."""
    p = forward(model, sample)
    with torch.no_grad():
        x = p.blocks[start].x
        sub = run(p.net, x, p.real, start)
        c = torch.zeros(len(x), *x.shape, dtype=torch.float64)
        for k in range(len(x)):
            c[k, k] = x[k]
        for w, block in zip(p.net.blocks[start:], sub.blocks, strict=True):
            c = through_block(p.net, w, block, c, bias)
        return through_readout(sub, c[:1], bias)[0, :, target]


def through_block(net: Network, w: BlockWeights, block: Block, c: Tensor, bias: str) -> Tensor:  # (N, N, D)
    if net.post_norm:
        mid = normed(w.norm1, block.x + block.attended, c_after_attention(w, block, c, c, bias), bias)
        return normed(w.norm2, block.mid + block.ffn, mid + fed_forward(w, block, mid, bias), bias)
    mid = c_after_attention(w, block, c, normed(w.norm1, block.x, c, bias), bias)
    return mid + fed_forward(w, block, normed(w.norm2, block.mid, mid, bias), bias)


def c_after_attention(w: BlockWeights, block: Block, residual: Tensor, read: Tensor, bias: str) -> Tensor:
    heads, n, d = block.v.shape
    total = residual.clone()
    for h in range(heads):
        rows = slice(h * d, (h + 1) * d)
        v = read @ w.value.weight[rows].T  # (N, N, d)
        for i in range(n):
            for j in range(n):
                total[i] += block.a[h, i, j] * v[j] @ w.project.weight[:, rows].T
    return with_bias(total, w.project.weight @ w.value.bias + w.project.bias, bias)


def fed_forward(w: BlockWeights, block: Block, c: Tensor, bias: str) -> Tensor:
    slope = (gelu(block.pre) / block.pre).unsqueeze(1)
    return linear(w.fc2, slope * linear(w.fc1, c, bias), bias)


def through_readout(p: Pass, c: Tensor, bias: str) -> Tensor:  # (1, N, D) -> (1, N, C)
    if p.net.norm is not None:
        c = normed(p.net.norm, p.tokens[:1], c, bias)
    if p.net.pooler is not None:
        z = p.net.pooler(p.tokens[0])
        c = torch.tanh(z) / z * linear(p.net.pooler, c, bias)
    return linear(p.net.classifier, c, bias)


def linear(m: Linear, c: Tensor, bias: str) -> Tensor:
    return with_bias(c @ m.weight.T, m.bias, bias)


def normed(m: Norm, full: Tensor, c: Tensor, bias: str) -> Tensor:
    return with_bias((c - c.mean(-1, keepdim=True)) / m.deviation(full).unsqueeze(1) * m.weight, m.bias, bias)


def with_bias(c: Tensor, b: Tensor, bias: str) -> Tensor:  # (M, N, D), (D,)
    """C_ik + w_ik b."""
    if bias == "none":
        return c
    result = c.clone()
    for i in range(len(c)):
        asked = weights(c[i], b, bias)
        result[i] += (asked / asked.sum()).unsqueeze(1) * b
    return result


def weights(parts: Tensor, b: Tensor, bias: str) -> Tensor:  # (N, D), (D,) -> (N,)
    """How much of a bias each source asks for."""
    lengths, dots = parts.norm(dim=1), parts @ b
    if bias == "cls":
        return (torch.arange(len(parts)) == 0).double()
    if bias == "abssim":
        return torch.where(lengths > 0, (dots / (lengths * b.norm())).abs(), 0)
    return {"absdot": dots.abs(), "dot": dots, "norm": lengths, "equal": (lengths > 0).double()}[bias]
