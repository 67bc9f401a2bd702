"""Fidelity: does the prediction fall when, and only when, the map says so?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from quantus.helpers.enums import ScoreDirection
from torch import Tensor

from captum_vit.errors import InputError, OptionError
from quantus_metrics.perturb import FRACTIONS, Blur, Curve, Remover, curves

from .base import Batch, TokenMetric


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
              has exactly the negative fidelity. The order of the patches alone counts.
    Costs     nothing beyond the two curves.
    Watch     the unit is that of the score: logits of another model are another scale. And it depends on the
              remover: compare like with like.

    Reference: Brocki et al., Class-Discriminative Attention Maps, section 3.4.
    """
    return area(lif, normalised) - area(mif, normalised)


class Fidelity(TokenMetric):
    """How much sooner the target's logit falls when important patches leave first than when they leave last.

    See `fidelity` for the formula and `area` for its parts. Patches are replaced by a Gaussian blur and the
    logit is read at 0, 5, ..., 100 %. Costs 40 image passes per sample (21 for one area alone), `batch_size`
    of them at a time unless `internal_batch_size` says otherwise.

    Args:
        score: "fidelity", A_LIF − A_MIF; or one area alone, "mif" or "lif". `score_direction` follows.
        normalised: over 0..1 rather than over percent.
        patch_size: rank and remove whole patches, of this many pixels; for pixel maps, as Quantus has them.
            None ranks pixels, as the paper says. Give the model's patch size for maps of patches that were
            enlarged to pixels: no patch is then half removed.
        remover: how patches go away; a `Blur` of height / 16 by default.
        fractions: how much is gone at each step.
        internal_batch_size: images per forward pass.
        return_curves: keep the curves of the last call, as `curves`, which `plot` draws.
        **kwargs: Quantus's own; see `TokenMetric`.

    Example:
        >>> metric = Fidelity(patch_size=16, return_curves=True)
        >>> scores = metric(model, x_batch, y_batch, explain_func=explain_func(LayerCDAM))
        >>> metric.plot()
    """

    name = "Fidelity"

    def __init__(
        self,
        *,
        score: Literal["fidelity", "mif", "lif"] = "fidelity",
        normalised: bool = False,
        patch_size: int | tuple[int, int] | None = None,
        remover: Remover | None = None,
        fractions: Sequence[float] = FRACTIONS,
        internal_batch_size: int | None = None,
        return_curves: bool = False,
        default_plot_func: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(default_plot_func=default_plot_func or plot_curves, **kwargs)
        if score not in ("fidelity", "mif", "lif"):
            raise OptionError('`score` must be "fidelity", "mif" or "lif".', repr(score))
        self.score, self.normalised = score, normalised
        self.score_direction = ScoreDirection.LOWER if score == "mif" else ScoreDirection.HIGHER
        self.patch_size, self.remover = patch_size, remover or Blur()
        self.fractions, self.internal_batch_size = fractions, internal_batch_size
        self.return_curves = return_curves

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        found = curves(
            batch.model,
            batch.inputs,
            batch.target,
            batch.relevance,
            orders=("mif", "lif") if self.score == "fidelity" else (self.score,),
            remover=self.remover,
            fractions=self.fractions,
            patch_size=self.patch_size,
            internal_batch_size=self.internal_batch_size,
        )
        measure: Callable[..., Tensor] = fidelity if self.score == "fidelity" else area
        kept = {order: curve.scores for order, curve in found.items()} if self.return_curves else {}
        return {"score": measure(*found.values(), normalised=self.normalised), **kept}

    @property
    def curves(self) -> dict[str, Curve]:
        """The curves behind the last call's scores, by order, on the CPU; needs `return_curves`."""
        if not self.kept:
            raise InputError(
                "Curves of a call.",
                "none kept" if self.return_curves else "return_curves=False",
                "Fidelity(return_curves=True), and call it first.",
            )
        return {
            order: Curve(torch.tensor(self.fractions, dtype=scores.dtype), scores)
            for order, scores in self.kept.items()
        }

    def plot(
        self,
        plot_func: Callable[..., Any] | None = None,
        show: bool = True,
        path_to_save: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Draw the last call's curves, or those given; see `plot_curves`."""
        super().plot(plot_func, show, path_to_save, *(args or (self.curves,)), **kwargs)


def plot_curves(found: Mapping[str, Curve], ax: Axes | None = None) -> Axes:
    """The mean score over samples against the percentage gone, one line per order."""
    ax = ax or plt.subplots()[1]
    for order, curve in found.items():
        label = f"{order.upper()}, area {area(curve).mean():.4g}"
        ax.plot(100 * curve.fractions, curve.scores.mean(0), label=label)
    if {"mif", "lif"} <= found.keys():
        low, high = found["mif"].scores.mean(0), found["lif"].scores.mean(0)
        ax.fill_between(100 * found["mif"].fractions, low, high, alpha=0.15, label="fidelity")
    ax.set(xlabel="% of the image gone", ylabel="score of the target", xlim=(0, 100))
    ax.legend()
    return ax
