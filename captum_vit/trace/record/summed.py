"""Maps of several blocks as one."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor

from captum_vit.trace.layout.spread import spread
from captum_vit.trace.record.products import over_channels
from captum_vit.trace.record.record import Record


def summed(
    found: Record,
    maps: Iterable[Tensor],  # shape of each: (B, N, D) or (B, N)
    layers: Iterable[int],
) -> Tensor:
    """The sum of the maps of these blocks; of several grids, each is laid on that of the record first."""
    if not found.layouts:
        return reduce(torch.add, maps)
    return reduce(torch.add, (_on_first(found, one, layer) for one, layer in zip(maps, layers, strict=True)))


def _on_first(found: Record, one: Tensor, layer: int) -> Tensor:  # shape: (B, N)
    layout = found.layout_of(layer)
    return spread(over_channels(one, layout.standing) if one.dim() == 3 else one, layout, found.layout)
