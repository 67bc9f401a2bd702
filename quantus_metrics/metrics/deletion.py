"""Deletion and insertion with true token masking: is what the map ranks first needed, and is it enough?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.options import one_of
from quantus_metrics.perturb import Curve, DropTokens, MaskKeys, target_score
from quantus_metrics.perturb.curve import Readout

from .batch import Answers, Batch, Samples
from .curves import CurveMetric
from .perturbation_accuracy import TENTHS, hits_of

Average = Literal["mean", "trapezoid"]


def deletion_accuracy(
    hit: Curve,  # 1 where the model still answers with the target, important parts first
    average: Average = "mean",
) -> Tensor:  # shape: (B,)
    r"""How often the model loses its answer when the important parts leave.

    .. math:: 100 - \frac{100}{|R|} \sum_{r \in R} \mathbf{1}[\arg\max f(x \setminus \text{top } r) = y]

    Reads     higher is better, from 0 to 100.
    """
    return _averaged(100 - 100 * hit.scores, hit.fractions, average)


def deletion_aopc(
    intact: Tensor,  # shape: (B,), the probability given the whole input
    probability: Curve,  # important parts first
    average: Average = "mean",
) -> Tensor:  # shape: (B,)
    r"""How much of the target's probability leaves with the important parts.

    .. math:: \frac{100}{|R|} \sum_{r \in R} \bigl( p_y(x) - p_y(x \setminus \text{top } r) \bigr)

    Reads     higher is better, at most 100; below 0 the target gains by what leaves.
    """
    return _averaged(100 * (intact.unsqueeze(1) - probability.scores), probability.fractions, average)


def insertion_accuracy(
    hit: Curve,  # 1 where the model answers with the target, unimportant parts first to leave
    average: Average = "mean",
) -> Tensor:  # shape: (B,)
    r"""How often nothing but the important parts is enough for the answer.

    .. math:: \frac{100}{|R|} \sum_{r \in R} \mathbf{1}[\arg\max f(\text{top } r \text{ of } x) = y]

    Reads     higher is better, from 0 to 100.
    """
    return _averaged(100 * hit.scores, hit.fractions, average)


def insertion_aopc(
    intact: Tensor,  # shape: (B,), the probability given the whole input
    probability: Curve,  # unimportant parts first to leave
    average: Average = "mean",
) -> Tensor:  # shape: (B,)
    r"""How much of the target's probability the important parts bring back without the rest.

    .. math:: 100 - \frac{100}{|R|} \sum_{r \in R} \bigl( p_y(x) - p_y(\text{top } r \text{ of } x) \bigr)

    Reads     higher is better; 100 where nothing is lost, more where the target gains by what is missing.
    """
    return _averaged(100 - 100 * (intact.unsqueeze(1) - probability.scores), probability.fractions, average)


def _averaged(
    values: Tensor,  # shape: (B, K)
    fractions: Tensor,  # shape: (K,)
    average: Average,
) -> Tensor:  # shape: (B,)
    return values.mean(1) if average == "mean" else torch.trapezoid(values, fractions)


class _TrueMasking(CurveMetric):
    """What deletion and insertion share: options, what is read, and that parts are patches or words."""

    default_remover = DropTokens
    _least: ClassVar[dict[str, float]] = {}  # the least score of each kind
    _most: ClassVar[dict[str, float]] = {}

    def __init__(
        self,
        *,
        score: Literal["accuracy", "aopc"] = "accuracy",
        average: Average = "mean",
        fractions: tuple[float, ...] = TENTHS,
        **kwargs: Any,
    ) -> None:
        one_of("score", score, ("accuracy", "aopc"))
        one_of("average", average, ("mean", "trapezoid"))
        super().__init__(fractions=fractions, **kwargs)
        self.score, self.average = score, average
        self.softmax = self._wants_intact = score == "aopc"
        self.answers = score == "accuracy"
        self.reading = "accuracy" if score == "accuracy" else "probability of the target"
        width = 1.0 if average == "mean" else self.fractions[-1] - self.fractions[0]
        self.score_range = (width * self._least[score], width * self._most[score])

    def _reader(self, answer: Answers) -> Readout:
        return hits_of(answer) if self.score == "accuracy" else target_score

    def _check(self, samples: Samples, model: Answers, explain_func: Callable[..., np.ndarray] | None) -> None:
        super()._check(samples, model, explain_func)
        if samples.a_batch is not None:
            self._check_parts(samples.maps().shape, samples.x_batch.shape)

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        self._check_parts(tuple(batch.relevance.shape), tuple(batch.inputs.shape))
        return super()._measure(batch)

    def _check_parts(self, maps: tuple[int, ...], inputs: tuple[int, ...]) -> None:
        """A pixel is no token."""
        tokens = isinstance(self.remover, DropTokens | MaskKeys)
        if tokens and self.patch_size is None and len(inputs) == 4 and maps[-2:] == inputs[-2:]:
            raise InputError(
                f"{self.name}: maps of patches, since tokens are removed, or `patch_size`.",
                f"maps of {maps[-2]} x {maps[-1]} pixels",
                f"{type(self).__name__}(patch_size=16), with the model's own.",
            )


class Deletion(_TrueMasking):
    """How much the prediction suffers when the tokens that the map ranks first are taken out of the sequence.

    See `deletion_accuracy` and `deletion_aopc` for the formulas. Removed parts are not replaced: patches, or
    words, are dropped after the position embedding (`DropTokens`), at 10, ..., 90 %. Costs 9 passes per sample, of
    ever shorter sequences; one more, of the whole input, for the AOPC; and the three of the remover's trial.

    Args:
        score: "accuracy", of the class in ``y_batch``; or "aopc", of its probability. Higher is better for both.
        average: "mean" over the steps; or "trapezoid", the area over them, 0.8 times as much for a straight line.
        fractions: how much is gone at each step.
        **kwargs: `patch_size` (needed for maps of pixels), `remover`, `internal_batch_size` and `return_curves`;
            see `CurveMetric`. And Quantus's own; see `TokenMetric`.

    Departs   a step removes the nearest whole number of tokens, where the authors round down. The paper calls its
              figure an area under the curve, and the public code has both that and the mean.

    ``y_batch`` is the ground truth in the paper. Give the predicted classes for the variant of its appendix.

    Example:
        >>> metric = Deletion(score="aopc", patch_size=16)
        >>> metric(model, x_batch, y_batch, explain_func=explain_func(METHODS["SkipPLUS(DecompX)"]))

    Reference: Mehri et al., SkipPLUS: Skip the First Few Layers to Better Explain Vision Transformers, section 4.1.
    """

    name = "Deletion"
    orders = ("mif",)
    _least: ClassVar[dict[str, float]] = {"accuracy": 0.0, "aopc": -100.0}
    _most: ClassVar[dict[str, float]] = {"accuracy": 100.0, "aopc": 100.0}

    def _score(self, found: Mapping[str, Curve], intact: Tensor) -> Tensor:
        if self.score == "accuracy":
            return deletion_accuracy(found["mif"], self.average)
        return deletion_aopc(intact, found["mif"], self.average)


class Insertion(_TrueMasking):
    """How well the prediction fares on nothing but the tokens that the map ranks first.

    See `insertion_accuracy` and `insertion_aopc` for the formulas. All other tokens are dropped after the position
    embedding (`DropTokens`): 90, ..., 10 % of them, so that 10, ..., 90 % are left. Costs what `Deletion` does.

    Args:
        score: "accuracy", of the class in ``y_batch``; or "aopc", of its probability. Higher is better for both.
        average: "mean" over the steps; or "trapezoid", the area over them.
        fractions: how much is *gone* at each step; what is left is the rest.
        **kwargs: as `Deletion` has them.

    Departs   as `Deletion` does.

    Reference: Mehri et al., SkipPLUS: Skip the First Few Layers to Better Explain Vision Transformers, section 4.1.
    """

    name = "Insertion"
    orders = ("lif",)
    _least: ClassVar[dict[str, float]] = {"accuracy": 0.0, "aopc": 0.0}
    _most: ClassVar[dict[str, float]] = {"accuracy": 100.0, "aopc": 200.0}

    def _score(self, found: Mapping[str, Curve], intact: Tensor) -> Tensor:
        if self.score == "accuracy":
            return insertion_accuracy(found["lif"], self.average)
        return insertion_aopc(intact, found["lif"], self.average)
