"""The parts of a picture that tokens read, sorted into the rows and columns of one grid."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from captum_vit.errors import UnsupportedModelError
from captum_vit.trace.layout.reach import Reach

NEAR = 0.25  # of a token's size: centres that lie nearer are one place
MISSING = 1.95  # gaps that differ by this factor: a row or a column is missing
GAP = 0.4  # of the widest gap between centres: what is wider lies between two places


@dataclass(frozen=True)
class Axis:
    """One direction of a grid.

    Args:
        name: ``"row"``, ``"column"``, or the number of the input's dimension where it is no picture's.
        cells: how many places lie along it.
        start: the step of the input, along that dimension, where the first begins; it may lie before the input.
        end: the step behind the last; it may lie behind the input.
        size: steps of the input along that dimension.
        dimension: its number in a sample, from 0.
    """

    name: str
    cells: int
    start: int
    end: int
    size: int
    dimension: int


@dataclass(frozen=True)
class Grid:
    """Places in reading order, the last axis fastest.

    Args:
        axes: its directions.
        tokens: the token of each place, or -1 where there is none.
    """

    axes: tuple[Axis, ...]
    tokens: tuple[int, ...]

    def __str__(self) -> str:
        return " x ".join(f"{axis.cells} ({axis.name})" for axis in self.axes)


def grid_of(reach: Reach, shape: tuple[int, ...]) -> Grid:
    """The grid on which tokens lie in a sample of this shape, one at each place.

    Raises:
        UnsupportedModelError: two tokens at one place, or places that are no grid.
    """
    tokens = reach.placed.nonzero().flatten()
    axes, places, even = _sorted(reach, shape)
    total = prod(axis.cells for axis in axes)
    if len(places.unique()) == len(places) and (even or (len(places) == total and not reach.apart)):
        laid = torch.full((total,), -1, device=tokens.device)
        laid[places] = tokens
        return Grid(axes, tuple(laid.tolist()))
    raise UnsupportedModelError(
        "One token for each place of a grid.",
        f"{len(places)} tokens that read {len(places.unique())} places of a grid of {Grid(axes, ())}",
        "a model that cuts its input into one grid of patches, layer=0 of one whose stages mix tokens between them, or "
        'output="channels" at a layer.',
    )


def _sorted(reach: Reach, shape: tuple[int, ...]) -> tuple[tuple[Axis, ...], Tensor, bool]:
    """The axes, the place (P,) of each token in reading order, and whether places are evenly spaced."""
    axes: list[Axis] = []
    places, even = torch.zeros_like(reach.centre[:, 0], dtype=torch.long), True
    for axis, size in enumerate(shape):
        centre = reach.centre[:, axis]
        number, cells = cells_along(centre, reach.behind[:, axis] - reach.first[:, axis])
        if cells == 1 and axis < len(shape) - 2:
            continue  # all tokens read it all, such as colours
        axes.append(Axis(_name(axis, len(shape)), cells, *_edges(reach, axis, number, cells, size), size, axis))
        places = places * cells + number
        even = even and _evenly_spaced(centre, number, cells)
        even = even and not (reach.apart and _merged(reach, axis, number, cells))
    return tuple(axes), places, even


def _name(axis: int, n: int) -> str:
    return {n - 2: "row", n - 1: "column"}.get(axis, f"dimension {axis + 1}")


def cells_along(
    centre: Tensor,  # shape: (P,)
    size: Tensor,  # shape: (P,)
) -> tuple[Tensor, int]:  # shape: (P,)
    """Which place along an axis each token has, and how many there are."""
    ordered = centre.double().unique()
    gaps = ordered.diff()
    if not len(gaps) or ordered[-1] - ordered[0] < NEAR * float(size.double().median()):
        return torch.zeros_like(centre, dtype=torch.long), 1
    cuts = ((ordered[:-1] + ordered[1:]) / 2)[gaps > GAP * gaps.max()]
    return torch.bucketize(centre.double().contiguous(), cuts), len(cuts) + 1


def _evenly_spaced(centre: Tensor, number: Tensor, cells: int) -> bool:
    """Whether no row or column is missing; those at the border are nearer where they read padding."""
    middle = torch.stack([centre[number == i].double().mean() for i in range(cells)])
    gaps = middle.diff()
    return not len(gaps) or bool(gaps.max() < MISSING * gaps.min())


def _merged(reach: Reach, axis: int, number: Tensor, cells: int) -> bool:
    """Whether tokens that read nothing in common along an axis were given one place there."""
    first, behind = reach.first[:, axis], reach.behind[:, axis]
    return any(bool(first[number == i].amax() >= behind[number == i].amin()) for i in range(cells))


def _edges(reach: Reach, axis: int, number: Tensor, cells: int, size: int) -> tuple[int, int]:
    """From the first step of an axis to behind its last; tokens divide what lies between evenly.

    Of tokens that do not overlap, those at the border that read less than their neighbours read padding beyond it.
    """
    start, end = reach.read[axis].tolist()
    if cells == 1:
        return start, end
    if not reach.apart:
        return _around_centres(reach, axis, number, cells)
    low = [int(reach.first[number == i, axis].min()) for i in range(cells)]
    high = [int(reach.behind[number == i, axis].max()) for i in range(cells)]
    pitches = {b - a for a, b in pairwise(low[1:])} or {max(b - a for a, b in zip(low, high, strict=True))}
    if len(pitches) > 1:
        return start, end
    (pitch,) = pitches
    if start == 0:
        start = min(start, low[1] - pitch)
    if end == size:
        end = max(end, low[-1] + pitch)
    gap = pitch - max(b - a for a, b in zip(low, high, strict=True))
    return (start, end) if gap <= 0 else (start - gap // 2, start - gap // 2 + cells * pitch)


def _around_centres(reach: Reach, axis: int, number: Tensor, cells: int) -> tuple[int, int]:
    """Tokens that overlap divide what they read, where that is as long as they are apart, times their number.

    Where nothing is padded it is longer, since those at the border read as much as the others: each token then is as
    wide as centres are apart, around its own. That is seen at two neighbours in the middle that read as many steps.
    """
    start, end = reach.read[axis].tolist()
    left = (cells - 1) // 2
    boxes = [reach.box(int((number == i).nonzero()[0])) for i in (left, left + 1)]
    (first, behind), (next_first, next_behind) = (box[:, axis].tolist() for box in boxes)
    pitch = next_first - first
    if pitch <= 0 or next_behind - behind != pitch or abs(end - start - cells * pitch) < pitch / 2:
        return start, end
    begin = round((first + behind) / 2 - pitch * (left + 0.5))
    return begin, begin + cells * pitch
