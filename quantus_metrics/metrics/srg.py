"""SRG, the symmetric relevance gain: the area between the curves of the two orders."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from quantus_metrics.perturb import Blur, Curve

from .curves import CurveMetric
from .fidelity import fidelity


class SRG(CurveMetric):
    r"""The mean score while the least important parts leave first, less that while the most important leave first.

    .. math:: \int_0^1 f_c(x_{\setminus p}^\mathrm{LIF})\,dp - \int_0^1 f_c(x_{\setminus p}^\mathrm{MIF})\,dp

    It is the symmetric relevance gain. Each of the two areas depends on what stands in for removed parts, and rankings
    by one contradict those by the other; in their difference that part cancels.

    Reads     higher is better; 0 = no better than chance, and the negative map has exactly the negative score. Only the
              order of the parts counts. The unit is that of the score; with ``softmax=True`` in the call it lies in
              −1 to 1.
    Costs     40 image passes per sample, as `Fidelity`, whose score with the same remover and fractions is 100 times
              this one (its areas are over percent): divide that one if you have it.
    Departs   the paper leaves open what stands in for removed parts and how many steps there are; a Gaussian blur and
              steps of 5 % are those of `Fidelity`. The paper removes superpixels, this what the map ranks: patches or
              pixels.

    Args:
        **kwargs: `patch_size` (None ranks pixels), `remover` (a `Blur` of height / 16 by default), `fractions`,
            `internal_batch_size` and `return_curves`; see `CurveMetric`. And Quantus's own; see `TokenMetric`.

    Example:
        >>> SRG(patch_size=16)(model, x_batch, y_batch, explain_func=explain_func(LayerCDAM))

    Reference: Blücher et al., Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI Benchmarks.
    """

    name = "Symmetric Relevance Gain"
    orders = ("mif", "lif")
    default_remover = Blur

    def _score(self, found: Mapping[str, Curve], intact: Tensor) -> Tensor:
        return fidelity(**found, normalised=True)
