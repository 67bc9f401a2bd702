"""The grid pointing game: how much of the positive relevance of a class lies in its cell of a mosaic?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from quantus.helpers.enums import EvaluationCategory
from torch import Tensor

from .base import TokenMetric
from .batch import Answers, Batch, Samples
from .masks import check_masks, enlarged


def positive_share(
    relevance: Tensor,  # shape: (B, h, w) or (B, 1, h, w), of patches or of pixels
    cells: Tensor,  # shape: (B, H, W) or (B, 1, H, W), 1 in the cell of the target
) -> Tensor:  # shape: (B,)
    r"""The share of the positive relevance that lies in the cell.

    .. math:: \frac{\sum_{p \in \mathrm{cell}} s_p^+}{\sum_p s_p^+}

    Each patch of a map of patches counts evenly over its pixels.

    Reads     0 to 1, higher is better; a map that does not depend on the class has the cell's share of the image,
              1/4 for mosaics of 2 x 2.
    Watch     a map that is nowhere positive puts nothing into the cell, and has 0.
    """
    large, cells = enlarged(relevance.detach().cpu().double(), cells.cpu(), "nearest")
    positive = large.clamp_min(0)
    whole = positive.sum((1, 2))
    return (positive * (cells > 0)).sum((1, 2)) / whole.where(whole > 0, 1)


class GridPointing(TokenMetric):
    """The share of the positive relevance that lies in the target's cell of a mosaic.

    See `positive_share` for the formula, and `mosaics` for what makes the images; their cells are ``s_batch``.
    With other masks it is the share of the positive relevance on the object, also known as the energy-based
    pointing game. The model is not run: no forward passes beyond those of the explanation, and an embedding of one
    image, which gives the pixels that its patches read.

    Args:
        **kwargs: Quantus's own; see `TokenMetric`.

    Example:
        >>> GridPointing()(model, **mosaics(x_batch, y_batch), explain_func=explain_func(LayerCDAM))

    Reference: Böhle et al., Convolutional Dynamic Alignment Networks for Interpretable Classifications, section 4.
    """

    name = "Grid Pointing"
    evaluation_category = EvaluationCategory.LOCALISATION
    score_range = (0.0, 1.0)
    level = "ratio"

    def _check(self, samples: Samples, model: Answers, explain_func: Callable[..., np.ndarray] | None) -> None:
        check_masks(samples)
        if samples.a_batch is not None:
            samples.box(model)  # refuses maps that lie nowhere

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.masks is not None  # `_check` saw to it
        cells = batch.masks.flatten(1)
        return {
            "score": positive_share(batch.on_images("nearest-exact"), batch.masks),
            "chance": cells.double().mean(1),
        }

    def _draw(self, ax: Axes | None = None) -> Axes:
        ax = super()._draw(ax)
        ax.axvline(self.kept["chance"].mean().item(), color="grey", linestyle=":", label="knowing nothing")
        ax.set(xlabel="share of positive relevance in the target's cell")
        ax.legend()
        return ax
