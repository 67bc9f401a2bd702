"""Compactness: how much of the map is next to nothing?"""

from __future__ import annotations

from typing import Any

from quantus.helpers.enums import EvaluationCategory
from torch import Tensor

from captum_vit.options import boolean, number

from .base import TokenMetric
from .batch import Batch


def compactness(
    relevance: Tensor,  # shape: (B, h, w) or (B, 1, h, w), of patches or of pixels
    threshold: float = 0.05,
    absolute: bool = False,
) -> Tensor:  # shape: (B,)
    r"""The share of the map whose size is below a small part of its maximum.

    .. math:: \frac{1}{n} \bigl| \{ i : |s_i| < t \, \max_j s_j \} \bigr|

    Reads     from 0 to 1, higher is more compact: a map with one element other than 0 has (n − 1) / n. It does
              not measure whether the map is right.
    Watch     the maximum is the signed one, as in the authors' code: a map that is nowhere positive has 0, and a
              map whose strongest element is negative gets too small a threshold. `absolute` takes max |s| instead.
              A map of patches has the same compactness when each is repeated over its pixels, but not when it is
              enlarged bilinearly.
    Departs   the paper has "smaller than" once and "lower or equal" once; its code is strict, and so is this.

    Reference: Brocki et al., Class-Discriminative Attention Maps, section 3.4 and the authors' notebook.
    """
    s = relevance.detach().cpu().double().flatten(1)  # (B, n)
    most = (s.abs() if absolute else s).amax(1, keepdim=True)
    return (s.abs() < threshold * most).double().mean(1)


class Compactness(TokenMetric):
    """The share of the map whose size is below 5 % of its maximum.

    See `compactness` for the formula. The model is not run: no forward passes beyond those of the explanation.

    Args:
        threshold: the part of the maximum, above 0 and at most 1.
        absolute: of the largest absolute value rather than of the largest value.
        **kwargs: Quantus's own; see `TokenMetric`.
    """

    name = "Compactness"
    evaluation_category = EvaluationCategory.COMPLEXITY
    score_range = (0.0, 1.0)
    level = "ratio"
    compares_maps = False

    def __init__(self, *, threshold: float = 0.05, absolute: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = number("threshold", threshold, above=0, most=1, hint="threshold=0.05, as in the paper.")
        self.absolute = boolean("absolute", absolute)

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        return {"score": compactness(batch.relevance, self.threshold, self.absolute)}
