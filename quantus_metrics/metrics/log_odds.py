"""The log-odds score: by what factor does the prediction shrink while important parts leave?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from quantus.helpers.enums import ScoreDirection
from torch import Tensor

from captum_vit.errors import InputError
from quantus_metrics.perturb import Curve, target_score

from .curves import CurveMetric
from .explained import ChoosesExplained


def log_odds(
    intact: Tensor,  # shape: (B,), the probability given the whole image
    mif: Curve,  # of the probability, important parts first
) -> Tensor:  # shape: (B,)
    r"""The mean change of the log-probability of the target while important parts leave.

    .. math:: \frac{1}{|K|} \sum_{k \in K} \ln \frac{p_c(x_{\setminus k})}{p_c(x)}

    over the steps K of the curve.

    Reads     lower is better: −1 means that the probability falls by e, on a geometric average. (The name is
              the papers'; odds, p / (1 − p), do not occur.)
    Costs     nothing beyond the curve.
    Watch     the public code behind SkipPLUS has the opposite sign, ln p(x) − ln p(x without k).
    Departs   probabilities that are too small for the dtype count as its smallest normal number, so that one
              vanished probability does not make the mean infinite; the paper has no rule for it.

    Reference: Wu et al., Token Transformation Matters (VTranM), appendix B.3, eq. 22.
    """
    least = torch.finfo(mif.scores.dtype).tiny
    return (mif.scores.clamp_min(least).log() - intact.clamp_min(least).log().unsqueeze(1)).mean(1)


class LogOdds(ChoosesExplained, CurveMetric):
    """How much the logarithm of the target's probability changes while important parts leave first.

    See `log_odds` for the formula. Parts turn black; the probability is read at 0, 5, ..., 100 %. Costs 21
    image passes per sample, one more if `fractions` does not begin with 0.

    Args:
        explained: "target": ``y_batch`` is read. "predicted", as in the paper: the model's answer to the whole image is
            explained and read; see `ChoosesExplained`.
        **kwargs: `patch_size`, `remover` (black, through the normalisation of the model's own
            configuration), `fractions`, `internal_batch_size` and `return_curves`; see `CurveMetric`. And Quantus's;
            see `TokenMetric`.

    Raises:
        InputError: in a call, outputs that are no probabilities, where no softmax was to be taken.
    """

    name = "Log Odds"
    score_direction = ScoreDirection.LOWER
    softmax = True
    reads_explained = True
    reading = "probability of the target"
    _wants_intact = True

    def _readout(self, outputs: Tensor, target: Tensor) -> Tensor:
        if outputs.amin() < 0 or outputs.amax() > 1 + 1e-3:
            raise InputError(
                "Probabilities, whose logarithm can be taken.",
                f"outputs from {outputs.amin().item():.4g} to {outputs.amax().item():.4g}",
                "softmax=True for logits; AOPC for raw scores.",
            )
        return target_score(outputs, target)

    def _score(self, found: Mapping[str, Curve], intact: Tensor) -> Tensor:
        return log_odds(intact, found["mif"])
