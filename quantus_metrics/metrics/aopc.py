"""AOPC, the area over the perturbation curve: how much of the prediction do the important parts carry?"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from quantus_metrics.perturb import Curve

from .curves import CurveMetric
from .explained import ChoosesExplained


def aopc(
    intact: Tensor,  # shape: (B,), the probability given the whole image
    mif: Curve,  # of the probability, important parts first
) -> Tensor:  # shape: (B,)
    r"""The mean fall of the target's probability while important parts leave.

    .. math:: \frac{1}{|K|} \sum_{k \in K} \bigl( p_c(x) - p_c(x_{\setminus k}) \bigr)

    over the steps K of the curve.

    Reads     higher is better; at most 1 for probabilities. Below 0 the target gains by what leaves.
    Costs     nothing beyond the curve.
    Watch     K holds 0 in the paper, where nothing has gone: one term of 21 is 0 for every map.

    Reference: Wu et al., Token Transformation Matters (VTranM), appendix B.3, eq. 21. SkipPLUS has the same
    difference at 10, ..., 90 %.
    """
    return (intact.unsqueeze(1) - mif.scores).mean(1)


class AOPC(ChoosesExplained, CurveMetric):
    """How much the target's probability falls, on average, while important parts leave first.

    See `aopc` for the formula. Parts turn black; the probability is read at 0, 5, ..., 100 %. Costs 21 image
    passes per sample, one more if `fractions` does not begin with 0.

    The paper does not define what replaces removed parts; black is what its other tests take.

    Args:
        explained: "target": ``y_batch`` is read. "predicted", as in the paper: the model's answer to the whole image is
            explained and read; see `ChoosesExplained`.
        **kwargs: `patch_size`, `remover` (black, through the normalisation of the model's own
            configuration), `fractions`, `internal_batch_size` and `return_curves`; see `CurveMetric`. And Quantus's;
            see `TokenMetric`.

    Example:
        >>> metric = AOPC(explained="predicted", patch_size=16)
        >>> metric(model, x_batch, y_batch, explain_func=explain_func(VTranM))
    """

    name = "AOPC"
    softmax = True
    reads_explained = True
    score_range = (-1.0, 1.0)
    reading = "probability of the target"
    _wants_intact = True

    def _score(self, found: Mapping[str, Curve], intact: Tensor) -> Tensor:
        return aopc(intact, found["mif"])
