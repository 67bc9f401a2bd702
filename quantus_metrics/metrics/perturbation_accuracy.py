"""Accuracy under perturbation: does the model keep its answer for as long as it should, and no longer?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from quantus.helpers.enums import ScoreDirection
from torch import Tensor

from captum_vit.errors import OptionError
from captum_vit.options import boolean, one_of
from quantus_metrics.perturb import Curve, target_score
from quantus_metrics.perturb.curve import Readout, check_fractions

from .batch import Answers
from .curves import CurveMetric
from .explained import ChoosesExplained, Explained

TENTHS = tuple(k / 10 for k in range(1, 10))
"""10, 20, ..., 90 %."""


def hits(
    outputs: Tensor,  # shape: (n, n_classes)
    target: Tensor,  # shape: (n,)
    threshold: float | None = None,
) -> Tensor:  # shape: (n,), 1 where the model answers with the target, else 0
    """Top-1 accuracy, one image at a time; given a threshold, whether the target's own output is above it."""
    own = target_score(outputs, target)  # refuses targets that the model does not have
    return (outputs.argmax(1) == target if threshold is None else own > threshold).to(outputs.dtype)


def hits_of(answer: Answers) -> Readout:
    """`hits`; where every output has a probability of its own, the model answers with those above a half."""
    half = 0.5 if answer.reading == "probabilities" else 0.0
    return partial(hits, threshold=half if answer.made_by == "sigmoid" else None)


def accuracy_area(
    accuracy: Curve,
) -> Tensor:  # shape: (B,)
    r"""The area under the accuracy against the part that is gone, times 100.

    .. math:: 100 \int \mathbf{1}[\arg\max f(x_{\setminus p}) = y] \, dp

    by the trapezoid rule. Its mean over images is the area under the mean accuracy.

    Reads     lower is better where important parts leave first ("positive"), higher where they leave last.
              At most 100 times the width of the curve: 90 from 0 to 90 %, 80 from 10 to 90 %.
    """
    return 100 * accuracy.area()


class PerturbationAccuracy(ChoosesExplained, CurveMetric):
    """The area under the model's accuracy while parts turn black, important ones last or first.

    See `accuracy_area` for the formula. Accuracy is always that of the ground truth, ``y_batch``; a model of several
    labels answers with each whose logit is above 0, and one of a single logit with class 1 there. Costs 10 image
    passes per sample, 9 without the zero point; twice as many less one for the difference, and one more where the
    predicted class is explained.

    Args:
        score: "negative", least important parts first, higher is better; "positive", most important first, lower
            is better; or "difference", negative less positive, higher is better.
        explained: the class that the maps explain, "target" or "predicted"; see `ChoosesExplained`.
        include_zero: begin the area with the accuracy on whole images, at 0 %. The authors' published figures do.
            Without it the area begins at the first of `fractions`, which must then be above 0.
        fractions: what is gone at each step beyond the zero point; 10, ..., 90 % by default. VTranM's tables have
            0, 5, ..., 100 %: ``fractions=FRACTIONS``.
        **kwargs: `patch_size`, `enlarge`, `remover` (black, through the normalisation of the model's own
            configuration), `internal_batch_size` and `return_curves`; see `CurveMetric`. And Quantus's own; see
            `TokenMetric`.

    The authors enlarge maps of patches and remove pixels: ``enlarge="bilinear"``.

    Departs   a step removes the nearest whole number of parts where the authors round down.

    Example:
        >>> metric = PerturbationAccuracy(score="positive", explained="predicted", patch_size=16)
        >>> scores = metric(model, x_batch, labels, explain_func=explain_func(PredicAtt))
        >>> print(metric.summary())

    Reference: Chefer et al., Transformer Interpretability Beyond Attention Visualization, section 4, as the papers of
    Prediction Maps and VTranM use it.
    """

    name = "Perturbation Accuracy"
    reading = "accuracy"
    answers = True

    def __init__(
        self,
        *,
        score: Literal["negative", "positive", "difference"] = "negative",
        explained: Explained = "target",
        include_zero: bool = True,
        fractions: tuple[float, ...] = TENTHS,
        **kwargs: Any,
    ) -> None:
        one_of("score", score, ("negative", "positive", "difference"))
        boolean("include_zero", include_zero)
        fractions = check_fractions(fractions, least=1)
        if not include_zero and 0 in fractions:
            raise OptionError("`fractions` above 0, without the zero point.", repr(fractions), "include_zero=True.")
        begin = (0.0,) if include_zero and 0 not in fractions else ()
        super().__init__(explained=explained, fractions=(*begin, *fractions), **kwargs)
        self.score, self.include_zero = score, include_zero
        self.orders = {"negative": ("lif",), "positive": ("mif",), "difference": ("lif", "mif")}[score]
        self.score_direction = ScoreDirection.LOWER if score == "positive" else ScoreDirection.HIGHER
        most = 100 * (self.fractions[-1] - self.fractions[0])
        self.score_range = (-most if score == "difference" else 0.0, most)

    def _reader(self, answer: Answers) -> Readout:
        return hits_of(answer)

    def _score(self, found: Mapping[str, Curve], intact: Tensor) -> Tensor:
        first, *second = (accuracy_area(found[order]) for order in self.orders)
        return first - second[0] if second else first
