"""The in-domain single-deletion score: do cells whose loss costs more have more relevance?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.trace.run.found import without_gradients
from quantus_metrics.bridge import logits
from quantus_metrics.perturb import target_score

from .batch import Batch
from .box_sensitivity import pearson
from .trained_removal import TrainedRemovalMetric


def single_deletion_correlation(
    relevance: Tensor,  # shape: (B, h, w), of cells
    losses: Tensor,  # shape: (B, h, w), what the target loses without each
) -> Tensor:  # shape: (B,), float64 on the CPU
    r"""Spearman's correlation of the relevance of the cells and of what the target loses without each of them.

    .. math:: \rho\bigl( (S_i)_i,\; (f_c(x) - f_c(x \setminus i))_i \bigr)

    Reads     −1 to 1, higher is better; only the orders count. NaN where one of the two is the same for all cells.
    """
    ranks = [
        torch.from_numpy(stats.rankdata(x.detach().cpu().flatten(1).double(), axis=1)) for x in (relevance, losses)
    ]
    vary = [x.amax(1) > x.amin(1) for x in ranks]
    return pearson(*ranks).where(vary[0] & vary[1], torch.nan)


class IDSDS(TrainedRemovalMetric):
    """How well the order of the relevance agrees with the order of what the target's logit loses by each cell alone.

    The in-domain single-deletion score. See `single_deletion_correlation` for the formula. Each cell goes by itself,
    all others stay: a patch of a transformer is dropped from the sequence where the model allows it, otherwise its keys
    are hidden; of other models it takes the mean colour. Costs P + 1 image passes per sample for P cells, which serve
    all maps of a batch, and the three of the remover's trial.

    It is in-domain only for a model that was trained on inputs without some cells: the paper fine-tunes each model so,
    and `captum_vit.demo.demo_vit(dropped_tokens=True)` ships. Of another model it is a single-deletion score, which may
    reward a map for what the model does with inputs that it does not know. `least_kept` refuses such a model. Signed
    maps are meant: a cell may speak against the class.

    A sample for which there is no correlation (its logit does not move, say) is skipped: its score is NaN, and
    aggregates leave it out, `numpy.nanmean` being the default.

    Args:
        **kwargs: `patch_size`, `remover`, `least_kept`, `seed` and `internal_batch_size`; see `TrainedRemovalMetric`.
            And Quantus's own; see `TokenMetric`.

    Departs   the paper cuts every image into 4 x 4 cells, and sets them to zero; here a transformer loses its own
              patches. ``IDSDS(patch_size=56, remover=Fill())`` does what the paper does at 224 pixels.

    Example:
        >>> metric = IDSDS(least_kept=0.95)
        >>> scores = metric(model, x_batch, y_batch, explain_func=explain_func(METHODS["DecompX"]))

    Reference: Hesse et al., Benchmarking the Attribution Quality of Vision Models (IDSDS).
    """

    name = "IDSDS"
    score_range = (-1.0, 1.0)

    def __init__(self, *, aggregate_func: Callable[[list[float]], Any] | None = None, **kwargs: Any) -> None:
        super().__init__(aggregate_func=aggregate_func or np.nanmean, **kwargs)
        self.answers = self.least_kept is not None

    def _taken(self, n_cells: int) -> int:
        return 1

    @without_gradients
    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        maps, answer = self._bound(batch)
        n, h, w = maps.shape
        found = []
        for views in torch.arange((h * w + 1) * n, device=maps.device).split(self.internal_batch_size or n):
            row, cell = views % n, views // n - 1  # first all whole images, then all without the first cell, ...
            gone = (cell[:, None] == torch.arange(h * w, device=maps.device)).view(-1, h, w)
            found.append(target_score(logits(answer(row, gone)), batch.target[row]))
        scores = torch.cat(found).view(h * w + 1, n).T
        if not scores.isfinite().all():
            raise InputError("Finite scores.", "NaN or infinity from the model", "inputs without NaN; float32.")
        score = single_deletion_correlation(maps, (scores[:, :1] - scores[:, 1:]).view(n, h, w))
        if skipped := int(score.isnan().sum()):
            why = "the relevance of the cells, or what the target loses without them, does not vary."
            warnings.warn(f"{skipped} of {n} samples have no single-deletion score: {why}", stacklevel=2)
        return {"score": score}
