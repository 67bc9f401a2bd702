"""Twins of the methods that look at attention alone: RawAttention and AttentionRollout.

A^{l,h} (N, N): attention of head h in block l, rows are queries; row 0 is CLS.
"""

import torch
from torch import Tensor, nn

from tests.references.forward import Block, Sample, forward


def raw_attention(model: nn.Module, sample: Sample, layer: int = -1, head: int | None = None) -> Tensor:  # (N,)
    """CLS row of one block: 1/H sum_h A^{l,h}[CLS, j], or A^{l,h}[CLS, j] of the head that is given."""
    block = forward(model, sample).blocks[layer]
    return (mean_heads(block) if head is None else block.a[head].detach())[0]


def attention_rollout(model: nn.Module, sample: Sample, start: int = 0) -> Tensor:  # (N,)
    """Abnar and Zuidema (2020): product over blocks of mean_h A + I, each row scaled to sum 1; its CLS row."""
    p = forward(model, sample)
    n = len(p.tokens)
    rollout = torch.eye(n, dtype=torch.float64)
    for block in p.blocks[start:]:
        a = mean_heads(block) + torch.eye(n)
        for i in range(n):
            a[i] = a[i] / a[i].sum()
        rollout = a @ rollout
    return rollout[0]


def mean_heads(block: Block) -> Tensor:  # (N, N)
    """1/H sum_h A^h."""
    return sum(block.a.detach()) / len(block.a)
