"""Tokens that read nearly the whole picture, sorted by the last map of features that they are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from captum_vit.models.modules import modules_of
from captum_vit.sites.site import ThisThreadOnly
from captum_vit.trace.layout.embedding import Embedding
from captum_vit.trace.layout.grid import cells_along
from captum_vit.trace.layout.reach import Reach, bounds, single_readers


def by_features(embedding: Embedding, reach: Reach) -> Reach | None:
    """With the centres of cells of the last module's output (1, D, h, w), or (1, h, w, D), that one token each reads.

    Its rows and columns must be those of the picture: the middle of what their tokens read must go up from row to row,
    and from column to column. None where they are not. Costs one embedding and 2 log2 N gradients.
    """
    tokens, features = _tokens_and_features(embedding)
    spelt = None if features is None else single_readers(tokens, features)
    if spelt is None:
        return None
    token, _ = spelt
    found, number = token[token >= 0].unique(return_inverse=True)
    if not torch.equal(found, reach.placed.nonzero().flatten()):
        return None
    first, behind = bounds(token >= 0, number, len(found))
    sorted_by = [cells_along((first + behind)[:, axis] / 2, (behind - first)[:, axis]) for axis in range(3)]
    axes = [(place, cells) for place, cells in sorted_by if cells > 1]
    if len(axes) != 2:
        return None
    centre = reach.centre.clone()
    for axis, (place, cells) in zip((-2, -1), axes, strict=True):
        middle = torch.stack([reach.centre[place == i, axis].mean() for i in range(cells)])
        if not (middle.diff() > 0).all():
            return None
        centre[:, axis] = (place + 0.5) / cells * embedding.sample.shape[axis]
    return replace(reach, centre=centre)


def _tokens_and_features(embedding: Embedding) -> tuple[Tensor, Tensor | None]:
    maps: list[Tensor] = []

    def see(module: Any, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.requires_grad:
            maps.append(output)

    handles = [module.register_forward_hook(ThisThreadOnly(see)) for module in modules_of(embedding.model)]
    try:
        tokens = embedding.tokens(embedding.sample.clone().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    return tokens, maps[-1] if maps else None
