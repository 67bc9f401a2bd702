"""Fidelity: does the prediction fall when important parts go, and only then?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from quantus.helpers.enums import ScoreDirection
from torch import Tensor

from captum_vit.options import boolean, one_of
from quantus_metrics.perturb import Blur, Curve

from .curves import CurveMetric


def area(
    curve: Curve,
    normalised: bool = False,
) -> Tensor:  # shape: (B,)
    r"""The area under the score of the target against the part of the image that is gone.

    .. math:: A = \int_0^{100} f_c(x_{\setminus p})\,dp

    by the trapezoid rule, ``p`` in percent; `normalised` divides by 100, which makes it a mean score.

    Reads     under "mif" lower is better, under "lif" higher; the unit is that of the score.
    Costs     nothing beyond the curve.
    Departs   the paper gives neither steps nor unit. Its areas of hundreds fit logits over percent; the
              steps 0, 5, ..., 100 % are ours. Its numbers are means of this one over images: the area of a
              mean curve is the mean of the areas.

    Example:
        >>> curve = Curve(torch.tensor([0, 0.5, 1]), torch.tensor([[8.0, 4.0, 0.0]]))
        >>> area(curve)  # 50 (8 + 4)/2 + 50 (4 + 0)/2
        tensor([400.])

    Reference: Brocki et al., Class-Discriminative Attention Maps, section 3.4.
    """
    return curve.area() if normalised else 100 * curve.area()


def fidelity(
    mif: Curve,
    lif: Curve,
    normalised: bool = False,
) -> Tensor:  # shape: (B,)
    r"""How much sooner does the prediction fall when important patches leave first than when they leave last?

    .. math:: A_\mathrm{LIF} - A_\mathrm{MIF}

    Reads     higher is better; 0 = no better than chance on average, negative = upside down. The negative map
              has exactly the negative fidelity. Only the order of the patches counts.
    Costs     nothing beyond the two curves.
    Watch     the unit is that of the score: logits of another model are another scale. And it depends on the
              remover: compare like with like.

    Normalised, it is the symmetric relevance gain: `SRG` is the same metric by that name.

    Reference: Brocki et al., Class-Discriminative Attention Maps, section 3.4.
    """
    return area(lif, normalised) - area(mif, normalised)


class Fidelity(CurveMetric):
    """How much sooner the target's logit falls when important patches leave first than when they leave last.

    `SRG` is this over 0..1, by another name. See `fidelity` for the formula and `area` for its parts. Patches
    are replaced by a Gaussian blur and the logit is read at 0, 5, ..., 100 %. Costs 40 image passes per sample
    (21 for one area), `batch_size` of them at a time unless `internal_batch_size` is given.

    Args:
        score: "fidelity", A_LIF − A_MIF; or one of these areas, "mif" or "lif". `score_direction` follows.
        normalised: over 0..1 rather than over percent.
        **kwargs: `patch_size` (None ranks pixels, as in the paper), `remover` (a `Blur` of height / 16 by
            default), `fractions`, `internal_batch_size` and `return_curves`; see `CurveMetric`. And Quantus's
            own; see `TokenMetric`.

    Example:
        >>> metric = Fidelity(patch_size=16, return_curves=True)
        >>> scores = metric(model, x_batch, y_batch, explain_func=explain_func(LayerCDAM))
        >>> metric.plot()
    """

    name = "Fidelity"
    default_remover = Blur

    def __init__(
        self,
        *,
        score: Literal["fidelity", "mif", "lif"] = "fidelity",
        normalised: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.score = one_of("score", score, ("fidelity", "mif", "lif"))
        self.normalised = boolean("normalised", normalised)
        self.score_direction = ScoreDirection.LOWER if score == "mif" else ScoreDirection.HIGHER
        self.orders = ("mif", "lif") if score == "fidelity" else (score,)

    def _score(self, found: Mapping[str, Curve], intact: Tensor) -> Tensor:
        measure: Callable[..., Tensor] = fidelity if self.score == "fidelity" else area
        return measure(*found.values(), normalised=self.normalised)
