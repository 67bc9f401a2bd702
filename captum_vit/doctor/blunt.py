"""Maps that show little more than what the head reads in the last block."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_vit.trace.record.record import Record

NEARLY = 0.9
FROM_THE_FIRST = "DecompX"


def blunt(
    found: Record,  # with the row "evidence"
    maps: dict[str, Tensor],  # shape of each: (1, 1, h, w), or (1, T)
) -> dict[str, str]:
    """Of each method whose map is nearly the head's own row, how near: none where the head reads one row, such as CLS.

    A row is what the tokens that leave the last block add to the score. Where blocks have mixed them, it may say little
    of the places of the input. It says enough of them where a map of the tokens that enter the first block is near to
    it too: then there are none.
    """
    if not bool(found.several.any()):
        return {}
    row = found.layout.lay_out(found.row.squeeze(1), "grid")
    near = {name: correlation for name, x in maps.items() if (correlation := _correlation(x, row)) > NEARLY}
    if FROM_THE_FIRST in near:
        return {}
    return {
        name: f"its map is nearly what the head reads in the last block (correlation {correlation:.2f}); "
        f'{FROM_THE_FIRST} and CAT(model, rule="libra") go back to the first'
        for name, correlation in near.items()
    }


def _correlation(a: Tensor, b: Tensor) -> float:
    """Over all places; 0 where one of both is the same everywhere."""
    both = torch.stack([a.flatten().double(), b.flatten().double()])
    return float(torch.corrcoef(both)[0, 1].nan_to_num(0.0))
