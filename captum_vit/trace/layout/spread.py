"""A map on one grid, laid on another one of the same input by the areas that their cells share."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from captum_vit.errors import UnsupportedModelError
from captum_vit.tokens import TokenLayout


def spread(
    relevance: Tensor,  # shape: (B, N)
    layout: TokenLayout,
    onto: TokenLayout,
) -> Tensor:  # shape: (B, N')
    r"""Each cell's relevance, divided evenly over the part of the input that it stands for.

    .. math:: S'_i = \sum_j \frac{|i \cap j|}{\sum_k |k \cap j|}\,S_j

    Sums stay. Special tokens keep theirs where both layouts have as many; else their relevance is left out.

    Raises:
        UnsupportedModelError: the two are no grids of the same axes.
    """
    if layout.grid is None and onto.grid is None and layout.n_tokens == onto.n_tokens:
        return relevance
    if layout.grid is None or onto.grid is None or layout.image_size != onto.image_size:
        raise UnsupportedModelError(
            "Blocks whose tokens lie on grids of the same axes, to sum their maps.",
            f"one of {layout.grid or layout.n_tokens} and one of {onto.grid or onto.n_tokens} tokens",
            "a method that reads one layer.",
        )
    if layout.grid == onto.grid and layout.box == onto.box:
        patches = layout.patches(relevance)
    else:
        cells = layout.patches(relevance).unflatten(1, layout.grid)
        for axis, shares in enumerate(_shares(layout, onto), start=1):
            cells = (cells.movedim(axis, -1) @ shares.to(cells).mT).movedim(-1, axis)
        patches = cells.reshape(len(relevance), prod(onto.grid))
    laid = onto.from_patches(patches)
    if len(layout.special) == len(onto.special):
        laid[:, onto.special] = relevance[:, layout.special]
    return laid


def _shares(layout: TokenLayout, onto: TokenLayout) -> Sequence[Tensor]:  # shape of each: (cells there, cells here)
    """Along each axis, which part of a cell here lies in which cell there."""
    n = len(onto.box) // 2
    found = []
    for axis in range(n):
        here, there = (_edges(one, axis, n) for one in (layout, onto))
        first = torch.maximum(there[:-1, None], here[None, :-1])
        behind = torch.minimum(there[1:, None], here[None, 1:])
        shared = (behind - first).clamp_min(0)
        found.append(shared / shared.sum(0, keepdim=True).clamp_min(torch.finfo(shared.dtype).tiny))
    return found


def _edges(layout: TokenLayout, axis: int, n: int) -> Tensor:  # shape: (cells + 1,)
    assert layout.grid is not None
    return torch.linspace(layout.box[axis], layout.box[n + axis], layout.grid[axis] + 1, dtype=torch.float64)
