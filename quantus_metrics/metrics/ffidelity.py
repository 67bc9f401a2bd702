"""Fine-tuned fidelity: a random share of what a map calls important goes, within what the model was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from quantus.helpers.enums import ScoreDirection
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.options import integer, number, one_of
from captum_vit.trace.run.found import without_gradients
from quantus_metrics.bridge import logits
from quantus_metrics.perturb import rank, target_score
from quantus_metrics.perturb.curve import Readout, check_fractions
from quantus_metrics.perturb.remove import Answer

from .batch import Answers, Batch, whole_images
from .perturbation_accuracy import TENTHS, hits_of
from .trained_removal import TrainedRemovalMetric


def drawn_among(
    chosen: Tensor,  # shape: (B, P), bool
    n: int,
    lots: Tensor,  # shape: (P,)
) -> Tensor:  # shape: (B, P), bool
    """The `n` chosen cells of each sample with the smallest lots."""
    return lots.expand_as(chosen).masked_fill(~chosen, torch.inf).argsort(1).argsort(1) < n


class FFidelity(TrainedRemovalMetric):
    r"""How much a prediction suffers when a random share of the cells that the map ranks first goes, or of all others.

    .. math:: \mathrm{FFid}^+ = a(x) - \mathbb{E}\bigl[ a(x \setminus R) \bigr],\quad R \subset E_s \text{ at random},
        \quad |R| = \min(\alpha |E_s|, \beta P)

    :math:`E_s` are the share s of the P cells that the map ranks first; FFid⁻ takes R of all other cells. a is 1 where
    the model answers with the target, or the target's probability. The score is the mean over s. Since at most
    :math:`\beta P` cells go, chosen at random, the model meets nothing new if it was fine-tuned without a random share
    of up to :math:`\beta`: `captum_vit.demo.demo_vit(dropped_tokens=True)` was, up to a half. `least_kept` refuses
    models that were not.

    Costs S · n_draws + 1 image passes per sample for S shares, 451 at the defaults, and twice as many for the
    difference. Cells go as in `IDSDS`.

    Args:
        score: "plus", where higher is better; "minus", where lower is; or "difference", FFid⁺ − FFid⁻.
        reads: "accuracy", of the class in ``y_batch``, as the paper does; or its "probability".
        alpha: the share of the chosen cells that goes.
        beta: the largest share of all cells that goes: what the model was trained on.
        sizes: the shares s of the cells that count as the explanation.
        n_draws: random choices for each s, the same ones for every map.
        **kwargs: `patch_size`, `remover`, `least_kept`, `seed` and `internal_batch_size`; see `TrainedRemovalMetric`.
            And Quantus's own; see `TokenMetric`.

    Departs   the number of cells that go is fixed, at least one; the authors draw each cell by itself, so that more
              than the share :math:`\beta` may go by chance.

    Example:
        >>> metric = FFidelity(score="difference", reads="probability", beta=0.5)
        >>> scores = metric(model, x_batch, y_batch, explain_func=explain_func(METHODS["DecompX"]))

    Reference: Zheng et al., F-Fidelity: A Robust Framework for Faithfulness Evaluation of Explainable AI.
    """

    name = "F-Fidelity"
    score_range = (-1.0, 1.0)

    def __init__(
        self,
        *,
        score: Literal["plus", "minus", "difference"] = "plus",
        reads: Literal["accuracy", "probability"] = "accuracy",
        alpha: float = 0.5,
        beta: float = 0.1,
        sizes: Sequence[float] = TENTHS,
        n_draws: int = 50,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.score = one_of("score", score, ("plus", "minus", "difference"))
        self.reads = one_of("reads", reads, ("accuracy", "probability"))
        self.alpha = number("alpha", alpha, above=0, most=1, hint="alpha=0.5.")
        self.beta = number("beta", beta, above=0, below=1, hint="beta=0.1.")
        self.sizes = check_fractions(sizes, least=1)
        for end in (self.sizes[0], self.sizes[-1]):
            number("sizes", end, above=0, below=1, hint="sizes=(0.25, 0.5, 0.75).")
        self.n_draws = integer("n_draws", n_draws, hint="n_draws=50.")
        self.score_direction = ScoreDirection.LOWER if score == "minus" else ScoreDirection.HIGHER
        self.softmax, self.answers = reads == "probability", reads == "accuracy"

    def _taken(self, n_cells: int) -> int:
        return max(1, math.floor(self.beta * n_cells))

    def _reader(self, model: Answers) -> Readout:
        return hits_of(model) if self.reads == "accuracy" else target_score

    @without_gradients
    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        maps, answer = self._bound(batch)
        ranks, lots = rank(maps).flatten(1), torch.rand(self.n_draws, maps[0].numel(), generator=self._lot())
        read = self._reader(batch.model)
        whole = read(whole_images(batch.model, batch.inputs, self.internal_batch_size), batch.target)
        kept = {"whole": whole}
        for side in ("plus", "minus") if self.score == "difference" else (self.score,):
            chosen = [(ranks < size) == (side == "plus") for size in self._numbers(ranks.shape[1])]
            left = [self._left(batch, answer, one.view_as(maps), lots.to(maps.device), read) for one in chosen]
            kept[side] = whole - torch.stack(left).mean(0)
        if not all(found.isfinite().all() for found in kept.values()):
            raise InputError("Finite scores.", "NaN or infinity from the model", "inputs without NaN; float32.")
        score = kept["plus"] - kept["minus"] if self.score == "difference" else kept[self.score]
        return {"score": score, **kept}

    def _numbers(self, n_cells: int) -> list[int]:
        """How many cells count as the explanation; some are always left on either side."""
        return [min(max(1, int(size * n_cells + 0.5)), n_cells - 1) for size in self.sizes]

    def _left(self, batch: Batch, answer: Answer, chosen: Tensor, lots: Tensor, read: Readout) -> Tensor:  # shape: (B,)
        """The mean reading over the draws, without a random share of the chosen cells (B, h, w)."""
        flat, n = chosen.flatten(1), len(chosen)
        many = int(flat[0].sum())
        number = max(1, math.floor(min(self.alpha * many, self.beta * flat.shape[1])))
        gone = torch.stack([drawn_among(flat, number, lot) for lot in lots]).view(-1, *chosen.shape[1:])
        rows = torch.arange(len(gone), device=gone.device).split(self.internal_batch_size or n)
        found = [read(logits(answer(row % n, gone[row])), batch.target[row % n]) for row in rows]
        return torch.cat(found).view(len(lots), n).mean(0)
