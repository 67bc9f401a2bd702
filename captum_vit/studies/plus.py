"""Where should a sum over layers begin? The map of every cutoff from one pass, and a score for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_vit.attr.plus import PLUS
from captum_vit.errors import InputError, OptionError
from captum_vit.trace.run.state import undisturbed
from captum_vit.viz.blending import Picture
from captum_vit.viz.pictures import panels
from captum_vit.viz.studies import Figure, cutoff_curves

Score = Callable[[Tensor, Any], Any]
"""(maps (B, ...), targets) -> a number; it knows the images and the model by itself."""


@dataclass(frozen=True)
class Cutoffs:
    """The SkipPLUS map of every start layer m = 0 ... L-1; the first is PLUS."""

    maps: Tensor  # shape: (L, B, ...), as the method lays its maps out
    target: Any

    @property
    def middle(self) -> int:
        """SkipPLUS's own start layer, ceil(L / 2)."""
        return middle_of(len(self.maps))

    def scores(self, score: Score) -> Tensor:  # shape: (L,)
        """A score for each cutoff, from any function of (maps (B, ...), targets).

        Raises:
            OptionError: the function gives something else than one number.
        """
        return torch.tensor([_number(score(maps, self.target)) for maps in self.maps], dtype=torch.float64)

    def plot(self, picture: Picture, sample: int = 0, **style: Any) -> Figure:
        """The maps of one image side by side, a column for each start layer; all signed if one of them is.

        Args:
            picture: what the model saw, (3, H, W) in [0, 1] or PIL.
            sample: which image of the batch.
            style: keywords of :func:`captum_vit.viz.panels`.
        """
        names = {0: "PLUS", self.middle: "SkipPLUS"}
        maps = self.maps[:, sample]
        columns = {f"m = {m}\n{names.get(m, '')}": relevance[None] for m, relevance in enumerate(maps)}
        return panels(picture, columns, **{"signed": bool((maps < 0).any()), **style})


def cutoffs(method: Attribution, inputs: Any, target: Any = None, additional_forward_args: Any = None) -> Cutoffs:
    r"""SkipPLUS of a method from every start layer.

    .. math:: S_m = \sum_{l \ge m} \mathcal A(f_l)(x_l), \qquad m = 0, \ldots, L - 1

    Costs what :class:`captum_vit.PLUS` costs, once for all m: over a method of this package one forward and one
    backward pass; the sums are cumulative.

    Args:
        method: an instance that PLUS takes: ``DecompX(model)``, ``GenAtt(model)``, Captum's ``InputXGradient(model)``.
        inputs: as for ``attribute``.
        target: as for ``attribute``.
        additional_forward_args: as for ``attribute``.

    Raises:
        OptionError: a method that has no maps for start layers.

    Source: the SkipPLUS paper, appendix B, Figure 7.

    Example:
        >>> cutoffs(DecompX(model), images, target=labels).maps[6]  # SkipPLUS from block 6  # doctest: +SKIP
    """
    plus = PLUS(method)
    with undisturbed(plus.model):
        found = plus._record(inputs, target, additional_forward_args)
        sums = list(accumulate(reversed(plus._terms(found)), torch.add))  # S_{L-1}, ..., S_0
        laid = [plus._finish(relevance, found.layout, found.inputs)[0] for relevance in reversed(sums)]
    return Cutoffs(torch.stack(laid), target)


@dataclass(frozen=True)
class CutoffScores:
    """Scores of every cutoff, for one or several methods."""

    scores: dict[str, Tensor]  # shape of each: (L,)

    def best(self, higher_is_better: bool = True) -> dict[str, int]:
        """The start layer with the best score of each method."""
        return {name: int(s.argmax() if higher_is_better else s.argmin()) for name, s in self.scores.items()}

    def plot(self, score: str = "score", higher_is_better: bool = True) -> Figure:
        """Scores over start layers, PLUS and SkipPLUS marked, the best of each method ringed."""
        depth = len(next(iter(self.scores.values())))
        return cutoff_curves(self.scores, self.best(higher_is_better), middle_of(depth), score)


def score_cutoffs(sweeps: Mapping[str, Cutoffs], score: Score) -> CutoffScores:
    """Score every cutoff of one or several methods.

    Args:
        sweeps: name of a method -> its :func:`cutoffs`, of one model.
        score: (maps, targets) -> number.

    Raises:
        InputError: no sweep, or sweeps of different depths.
        OptionError: a score that is not one number.

    Example:
        >>> sweeps = {"DecompX": cutoffs(DecompX(model), images, labels)}  # doctest: +SKIP
        >>> score_cutoffs(sweeps, lambda maps, labels: insertion(model, images, maps, labels)).plot()  # doctest: +SKIP
    """
    if len({len(sweep.maps) for sweep in sweeps.values()}) != 1:
        depths = {name: len(sweep.maps) for name, sweep in sweeps.items()}
        got = f"depths {depths}" if depths else "none"
        raise InputError("At least one sweep, all of the same depth.", got, "sweeps of one and the same model.")
    return CutoffScores({name: sweep.scores(score) for name, sweep in sweeps.items()})


def middle_of(depth: int) -> int:
    """Where SkipPLUS starts by itself."""
    return min(math.ceil(depth / 2), depth - 1)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise OptionError("A score that is one number.", got, "its mean over samples.") from error
