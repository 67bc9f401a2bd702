"""Bias x gradient of every cell, block by block, in a network whose blocks have cells of several kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from captum_vit.models.transformer import Transformer
from captum_vit.sites.calls import ValueSite
from captum_vit.sites.site import Place, Site
from captum_vit.tokens import TokenLayout
from captum_vit.trace.layout.spread import spread
from captum_vit.trace.modes.biases import batch_first
from captum_vit.trace.modes.cells import place_tokens, places_of


class OfBlock(NamedTuple):
    """Where a bias was added: the block that ran last, and the places of the tensor's rows, where they are known."""

    layer: int
    places: list[Tensor] | None


def placing(
    transformer: Transformer, layouts: Mapping[int, TokenLayout], place: Callable[[], int]
) -> tuple[list[tuple[Place, Callable[[Tensor], None]]], Callable[[Tensor, int], OfBlock]]:
    """Visits that let the tokens of each block carry their places; and what tells where a bias is added.

    Args:
        transformer: the network.
        layouts: of its blocks, as far as they are watched.
        place: which block was entered last; after the blocks their number.
    """
    last = len(transformer.blocks) - 1

    def visit(layer: int, x: Tensor) -> None:
        place_tokens(x, transformer.blocks[layer].entrance.features, _numbered(layouts[layer]).to(x.device))

    def where(y: Tensor, axis: int) -> OfBlock:
        return OfBlock(min(place(), last), places_of(y, axis))

    return [(_as_it_is(transformer.blocks[layer].entrance), partial(visit, layer)) for layer in layouts], where


def _as_it_is(place: Place) -> Place:
    """Where a visitor sees the tensor itself, not the tokens in it."""
    return replace(place, features=None) if isinstance(place, Site | ValueSite) else place


def _numbered(layout: TokenLayout) -> Tensor:  # shape: (A, N)
    """The place of each token along the axes of the grid; a special token has -1 less its number, along all of them."""
    grid = layout.grid or (layout.n_tokens,)
    axes = torch.stack(torch.meshgrid(*map(torch.arange, grid), indexing="ij")).flatten(1).float()  # shape: (A, places)
    found = layout.from_patches(axes.mT.unsqueeze(0)).squeeze(0).mT.clone()
    found[:, layout.special] = -1.0 - torch.arange(len(layout.special))
    return found


class BiasesByCell:
    """Bias x gradient of every token, block by block, each on the grid of its own block.

    What is added to rows of which the cells are known belongs to these: where that is an average of cells, to those
    around it. All else, such as what is added behind the pooling, belongs to the cells that the head reads; to all
    alike, where none is seen to be read.
    """

    def __init__(
        self,
        layouts: Mapping[int, TokenLayout],
        pool: Tensor,  # shape: (B, N), the rows that the head reads, of the last block
    ) -> None:
        total = pool.sum(1, keepdim=True)
        self.layouts, self.pool = layouts, pool.where(total == 0, 1.0) / total.where(total == 0, pool.shape[1])
        self._rows = {max(layouts): self.pool}
        wide = torch.promote_types(pool.dtype, torch.float32)
        self.by_place = {  # shape of each: (B, N of that block)
            layer: pool.new_zeros(len(pool), layout.n_tokens, dtype=wide) for layer, layout in layouts.items()
        }

    def add(
        self,
        where: OfBlock,
        part: Tensor,  # shape: (B, ...)
    ) -> None:
        """Credit cells; sums are kept in float32 or wider."""
        part, batch = part.to(torch.promote_types(part.dtype, torch.float32)), len(self.pool)
        known = torch.zeros_like(part, dtype=torch.bool)
        if where.places is not None and where.places[0].shape == part.shape:
            known = torch.stack(where.places).isfinite().all(0)
            places = [one[known] for one in where.places]
            self.by_place[where.layer] += self._at(places, part[known], where.layer)
        if not known.all():
            loose = batch_first(part.masked_fill(known, 0), batch).reshape(batch, -1).sum(1, keepdim=True)
            self.by_place[where.layer] += loose * self._read(where.layer)

    def _at(
        self,
        places: list[Tensor],  # shape of each: (R,)
        part: Tensor,  # shape: (R,)
        layer: int,
    ) -> Tensor:  # shape: (B, N)
        """What belongs to cells by their places; what lies between cells is divided among them."""
        layout, (sample, *axes) = self.layouts[layer], [one.double() for one in places]
        grid, is_special = layout.grid or (layout.n_tokens,), axes[0] < 0
        of_cells = part.new_zeros(len(self.pool), layout.n_places)
        between = any(bool((along != along.floor()).any()) for along in axes)
        for corner in product((0, 1) if between else (0,), repeat=len(axes)):
            number, weight = sample.long(), torch.where(is_special, 0.0, 1.0)
            for size, along, upper in zip(grid, axes, corner, strict=True):
                low = along.floor().clamp(0, size - 1)
                share = (along - low).clamp(0, 1)
                weight = weight * (share if upper else 1 - share)
                number = number * size + (low + upper).clamp_max(size - 1).long()
            of_cells.view(-1).index_add_(0, number, part * weight.to(part))
        found = layout.from_patches(of_cells)
        for k, token in enumerate(layout.special):
            mine = axes[0] == -1 - k
            found[:, token].index_add_(0, sample[mine].long(), part[mine])
        return found

    def _read(self, layer: int) -> Tensor:  # shape: (B, N)
        """The rows that the head reads, on the grid of a block."""
        if layer not in self._rows:
            self._rows[layer] = on_earlier(self.pool, self.layouts[max(self.layouts)], self.layouts[layer])
        return self._rows[layer]


def on_earlier(
    behind: Tensor,  # shape: (B, N)
    layout: TokenLayout,
    earlier: TokenLayout,
) -> Tensor:  # shape: (B, N of the earlier block)
    """What belongs to tokens of a block, on those of an earlier one, by area.

    What special tokens have that the earlier block lacks, such as a CLS token that comes late, all tokens share.
    """
    laid = spread(behind, layout, earlier)
    if len(layout.special) != len(earlier.special):
        laid = laid + (behind.sum(1, keepdim=True) - laid.sum(1, keepdim=True)) / earlier.n_tokens
    return laid
