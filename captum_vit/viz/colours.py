"""From relevance to colour: where zero lies, where colours end, and which are safe for colour-blind readers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.colors import Colormap, LinearSegmentedColormap
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.options import boolean, number, shown

SIGNED = LinearSegmentedColormap.from_list(
    "captum_vit_signed",
    ["#0b3f94", "#1a6fd0", "#74b6f0", "#f5f5f3", "#fda65b", "#ee5f0a", "#b32d00"],
)
"""Blue is negative, orange positive: safe under every common colour blindness."""

POSITIVE = LinearSegmentedColormap.from_list(
    "captum_vit_positive",
    ["#2d0a5a", "#6d1b86", "#c0306b", "#f1633f", "#fda62f", "#fcec7c"],
)
"""Dark to light for maps without negative values; it survives a grey printer."""

FOR, AGAINST = "#ee5f0a", "#1a6fd0"
"""Evidence for the target, and against it, where a sum has one colour."""

PERCENTILE = 99.0
_FLAT = 1e-6  # a range this small beside the values is rounding, not a picture
_MOST = 2**24  # torch.quantile takes no more values than this


@dataclass(frozen=True)
class Scale:
    """What the ends of the colours stand for.

    Args:
        low: relevance at the first colour; ``-high`` on a signed scale.
        high: relevance at the last colour.
        signed: whether colours diverge from zero.

    ``low == high`` means that there is nothing to see: the maps are constant.
    """

    low: float
    high: float
    signed: bool

    @property
    def flat(self) -> bool:
        return self.low == self.high

    @property
    def colours(self) -> Colormap:
        return SIGNED if self.signed else POSITIVE

    def strength(
        self,
        relevance: Tensor,  # shape: any
    ) -> Tensor:  # same shape, in [-1, 1] on a signed scale, else in [0, 1]
        """How far from neutral each relevance lies; 0 everywhere on a flat scale."""
        if self.flat:
            return torch.zeros_like(relevance)
        zero = 0.0 if self.signed else self.low
        return ((relevance - zero) / (self.high - zero)).clamp(-1.0 if self.signed else 0.0, 1.0)

    def paint(
        self,
        strength: Tensor,  # shape: (...,)
    ) -> np.ndarray:  # shape: (..., 3), in [0, 1]
        """The colour of each strength."""
        place = (strength + 1) / 2 if self.signed else strength
        return self.colours(place.numpy())[..., :3]


def scale_of(*maps: Tensor, percentile: float = PERCENTILE, signed: bool | None = None) -> Scale:
    """One scale for one or several maps.

    A map with a negative value is signed: its colours diverge from zero and reach as far on both sides. Any
    other map goes from its least value to its greatest. A few extremes do not stretch the colours: what lies
    beyond the percentile (of the absolute values, for a signed map) is drawn at full colour.

    Args:
        maps: relevance of any shape, finite.
        percentile: where full colour begins, in (0, 100]; 99 by default, 100 clips nothing.
        signed: decide the kind yourself, so that several figures agree.

    Raises:
        InputError: no maps, or NaN or infinity in them.
        OptionError: a percentile outside (0, 100].
    """
    signed = None if signed is None else boolean("signed", signed)
    number("percentile", percentile, above=0, most=100, hint="percentile=99; 100 clips nothing.")
    values = torch.cat([finite(relevance).flatten() for relevance in maps]) if maps else torch.empty(0)
    if values.numel() == 0:
        raise InputError("At least one relevance to draw.", "none", "a map with elements.")

    low, high = values.min().item(), values.max().item()
    signed = low < 0 if signed is None else signed
    if high - low <= _FLAT * max(abs(low), abs(high)):
        return Scale(low, low, signed)
    ends = values.abs() if signed else values
    end = torch.quantile(_thinned(ends), percentile / 100).item()
    if signed:
        limit = end or ends.max().item()
        return Scale(-limit, limit, True)
    return Scale(low, end if end > low else high, False)


def _thinned(values: Tensor) -> Tensor:
    """Every k-th value, k = 1 unless there are very many."""
    return values[:: -(-len(values) // _MOST)]


def finite(relevance: Tensor) -> Tensor:
    """The map as float32 on the CPU, or an error that counts what is not finite."""
    try:
        relevance = torch.as_tensor(relevance).detach().float().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError("A map of numbers.", shown(relevance), "the tensor that `attribute` gave.") from error
    broken = int((~relevance.isfinite()).sum())
    if broken:
        raise InputError(
            "A finite map.",
            f"{broken} of {relevance.numel()} values are NaN or infinite",
            "running the model on these inputs: overflow in half precision is the usual cause.",
        )
    return relevance
