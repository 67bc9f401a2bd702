"""SaCo: does a group of parts with more salience also have more effect?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_vit.errors import OptionError
from quantus_metrics.perturb import Curve, Mean
from quantus_metrics.perturb.curve import check_fractions

from .curves import CurveMetric

TENTHS = tuple(k / 10 for k in range(1, 11))
"""The ends of ten groups of the same size."""


def saco(
    salience: Tensor,  # shape: (B, K), of each group
    left: Tensor,  # shape: (B, K), the score of the target when only this group is gone
) -> Tensor:  # shape: (B,)
    r"""Over all pairs of groups, how much of the difference in salience goes with a difference in effect.

    .. math:: \frac{\sum_{i<j} \pm\,(s_i - s_j)}{\sum_{i<j} |s_i - s_j|}, \qquad
        + \text{ where } f(x) - f(x_{\setminus i}) \ge f(x) - f(x_{\setminus j}), \text{ else } -

    for groups in the order of falling salience.

    Reads     from −1 to 1, higher is better: 1 where every group has at least the effect of each less salient one.
    Costs     nothing beyond the scores.
    Watch     equal effects agree with any salience, as in the paper: where no group has an effect, it is 1.

    Example:
        >>> saco(torch.tensor([[3.0, 2.0, 0.0]]), torch.tensor([[0.1, 0.5, 0.4]]))  # 1 + 3 - 2, by 1 + 3 + 2
        tensor([0.3333])
    """
    differences = (salience.unsqueeze(2) - salience.unsqueeze(1)).triu(1)  # (B, K, K)
    agree = left.unsqueeze(2) <= left.unsqueeze(1)
    return torch.where(agree, differences, -differences).sum((1, 2)) / differences.abs().sum((1, 2))


class SaCo(CurveMetric):
    """Whether groups of parts with more relevance have more effect on the prediction, each removed by itself.

    The parts are sorted by relevance and cut into ten groups of the same size, the most relevant first. Each group is
    replaced by the mean colour of the image, the others stay, and the target's probability is read. See `saco` for the
    formula. Unlike curves, in which parts pile up, it weighs how far groups are apart: a positive factor and an added
    constant change nothing, another increasing function does.

    Costs 10 image passes per sample, one for each group: the whole image is not needed, since it cancels.

    Args:
        fractions: where groups end, increasing, above 0: (0.25, 0.5, 0.75, 1) makes four.
        **kwargs: `patch_size` (None sorts pixels), `remover` (`Mean` by default), `internal_batch_size` and
            `return_curves`, which keeps the score without each group; see `CurveMetric`. And Quantus's own; see
            `TokenMetric`.

    Departs   the salience of a group is its mean, not its sum: the same coefficient where groups are of one size, and
              meaningful where their number does not divide that of the parts. The paper reads the class that the model
              predicts: give the predicted classes as ``y_batch`` for that.

    Example:
        >>> SaCo(patch_size=16)(model, x_batch, predicted, explain_func=explain_func(GenAtt))

    Reference: Wu et al., On the Faithfulness of Vision Transformer Explanations, algorithm 1.
    """

    name = "SaCo"
    softmax = True
    score_range = (-1.0, 1.0)
    level = "interval"
    reading = "probability of the target without one group"
    default_remover = Mean
    apart = True

    def __init__(self, *, fractions: Sequence[float] = TENTHS, **kwargs: Any) -> None:
        ends = check_fractions(fractions)
        if ends[0] == 0:
            raise OptionError("`fractions` above 0: the ends of groups.", repr(fractions), "fractions=(0.5, 1).")
        super().__init__(fractions=ends, **kwargs)

    def _score(self, found: Mapping[str, Curve], intact: Tensor) -> Tensor:
        groups = found["mif"]
        assert groups.relevance is not None
        return saco(groups.relevance.to(groups.scores), groups.scores)
