"""Twins of AttIN, GlobEnc and ALTI: every vector that a token adds to a row, and its length.

T_{i<-j} (D,) is the part of row i that comes from token j, in one block. E~^h (N, D) are the vectors that head h makes
of the tokens, b_V and LayerScale included (rows of A^h sum to 1: tokens carry b_V); b_O belongs to no token.

- AttIN (Kobayashi et al. 2020): T_{i<-j} = sum_h A^h_ij E~^h_j; the matrix holds its L2 norms.
- GlobEnc (Modarressi et al. 2022): [i = j] x_i is added. In a post-norm block T goes through both norms, each of which
  is linear with the deviation of the full vector; biases of norms belong to nobody. The matrix holds L2 norms.
- ALTI (Ferrando et al. 2022): T as in GlobEnc up to the first norm, y_i the full vector there. The matrix holds
  max(0, ||y_i||_1 - ||y_i - T_{i<-j}||_1), each row divided by its sum.

A rollout is the CLS row of the product of all matrices, the last block's first. AttIN's have no residual stream in
them: rows are divided by their sum and mixed in halves with the identity, as in the rollout of attention. GlobEnc's
product is divided by its row's sum, which the source does not do; ALTI's rows sum to 1 by themselves.
"""

import torch
from torch import Tensor, nn

from tests.references.forward import Block, BlockWeights, Norm, Pass, Sample, forward


def att_in(model: nn.Module, sample: Sample, aggregation: str = "last") -> Tensor:  # (N,)
    """CLS row of the last block's matrix; or of the sum of all; or of the rollout."""
    matrices = [norms(attention_parts(b)) for b in forward(model, sample).blocks]
    if aggregation == "rollout":
        identity = torch.eye(len(matrices[0]), dtype=torch.float64)
        return product([(identity + scaled(m)) / 2 for m in matrices])[0]
    return one_layer(matrices, aggregation)


def glob_enc(
    model: nn.Module, sample: Sample, aggregation: str = "rollout", include_ln2: bool | None = None
) -> Tensor:  # (N,)
    matrices = [norms(parts) for parts in glob_enc_parts(forward(model, sample), include_ln2)]
    if aggregation == "rollout":
        return scaled(product(matrices))[0]
    return one_layer(matrices, aggregation)


def alti(model: nn.Module, sample: Sample, aggregation: str = "rollout", order: int = 1) -> Tensor:  # (N,)
    p = forward(model, sample)
    blocks = zip(p.blocks, p.net.blocks, strict=True)
    matrices = [contributions(b.mid.detach(), mid_parts(p, b, w), order) for b, w in blocks]
    return product(matrices)[0] if aggregation == "rollout" else one_layer(matrices, aggregation)


# ------------------------------------------------------------------------------------------------------------ parts


def attention_parts(block: Block) -> Tensor:  # (N, N, D)
    """sum_h A^h_ij E~^h_j."""
    heads, n, _ = block.a.shape
    parts = torch.zeros(n, *block.x.shape, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            for h in range(heads):
                parts[i, j] += (block.a[h, i, j] * block.transformed[h, j]).detach()
    return parts


def mid_parts(p: Pass, block: Block, w: BlockWeights) -> Tensor:  # (N, N, D)
    """With the residual stream; behind the first norm of a post-norm block."""
    parts = attention_parts(block)
    for i in range(len(parts)):
        parts[i, i] += block.x[i].detach()
    return through(w.norm1, block.x + block.attended, parts) if p.net.post_norm else parts


def glob_enc_parts(p: Pass, include_ln2: bool | None = None) -> list[Tensor]:  # of each block: (N, N, D)
    """Behind the second norm of a post-norm block; of a pre-norm block, if asked for, T + LN2(T)."""
    found = []
    for block, w in zip(p.blocks, p.net.blocks, strict=True):
        parts = mid_parts(p, block, w)
        if p.net.post_norm and include_ln2 is not False:
            parts = through(w.norm2, block.mid + block.ffn, parts)
        elif include_ln2:
            parts = parts + through(w.norm2, block.mid, parts)
        found.append(parts)
    return found


def through(norm: Norm, full: Tensor, parts: Tensor) -> Tensor:  # (N, N, D)
    """(T - mean_d T) / deviation of the full vector of row i * gamma."""
    deviation = norm.deviation(full).detach()
    result = torch.zeros_like(parts)
    for i in range(len(parts)):
        for j in range(len(parts)):
            result[i, j] = (parts[i, j] - parts[i, j].mean()) / deviation[i] * norm.weight.detach()
    return result


# --------------------------------------------------------------------------------------------------------- matrices


def norms(parts: Tensor) -> Tensor:  # (N, N)
    n = len(parts)
    return torch.stack([torch.stack([parts[i, j].pow(2).sum().sqrt() for j in range(n)]) for i in range(n)])


def contributions(y: Tensor, parts: Tensor, order: int) -> Tensor:  # (N, N)
    n = len(parts)
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            distance = torch.linalg.vector_norm(y[i] - parts[i, j], ord=order)
            matrix[i, j] = max(0.0, (torch.linalg.vector_norm(y[i], ord=order) - distance).item())
    return scaled(matrix)


def scaled(matrix: Tensor) -> Tensor:  # (N, N)
    """Each row by its sum; a row of zeros stays."""
    rows = [row / row.sum() if row.sum() > 0 else row for row in matrix]
    return torch.stack(rows)


def product(matrices: list[Tensor]) -> Tensor:  # (N, N)
    total = torch.eye(len(matrices[0]), dtype=torch.float64)
    for matrix in matrices:
        total = matrix @ total
    return total


def one_layer(matrices: list[Tensor], aggregation: str) -> Tensor:  # (N,)
    return matrices[-1][0] if aggregation == "last" else sum(matrices)[0]
