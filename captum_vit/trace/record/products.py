"""Tokens times gradients, summed over channels."""

from __future__ import annotations

import torch
from torch import Tensor

CANCELLED = 1e-4  # a LayerNorm is free of scale but for its epsilon, about 1e-6 of the variance
ROUNDINGS = 3  # in half precision rounding leaves more


def over_channels(
    products: Tensor,  # shape: (B, N, D)
    standing: slice | Tensor,  # the tokens that stand for a place
) -> Tensor:  # shape: (B, N)
    r"""The sum of every token's terms; zero for the patches of a sample where the terms of all of them cancel.

    Where a patch reaches the score through a LayerNorm alone, which is free of scale, gradient x input is zero by
    algebra, and what a computer finds are the norm's epsilon and rounding. Patches count as zero where each has
    :math:`|\sum_d t_d| \le \max(10^{-4}, 3\epsilon)\,\|t\|_2`, with the precision's epsilon. Elsewhere that
    ratio is about 1, however small a map is, and sums stay as they are. In a model whose branches are nearly shut, by
    a LayerScale of 1e-4 or less in every block (as drawn before training), it is of the size of the LayerScale: there
    the norms' epsilon makes much of such a sum, and patches count as zero at every block.
    """
    total, patches = products.sum(-1), products[:, standing]
    least = max(CANCELLED, ROUNDINGS * torch.finfo(products.dtype).eps)
    left, length = total[:, standing], torch.linalg.vector_norm(patches, dim=-1)
    cancelled = (left.abs() <= least * length).all(1, keepdim=True)  # what is not a number does not cancel
    total[:, standing] = left.masked_fill(cancelled, 0)
    return total
