"""Completeness: by how much does the sum of a map miss the score that it explains?"""

from __future__ import annotations

from typing import Any

from quantus.helpers.enums import EvaluationCategory, ScoreDirection
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.options import IN_MEMORY, integer_or_none
from quantus_metrics.cells import Size
from quantus_metrics.perturb import Remover, curves, ranking_map, target_score
from quantus_metrics.perturb.ranks import at_size, patch_of
from quantus_metrics.perturb.remove import check_remover

from .base import TokenMetric
from .batch import Batch, whole_images


def completeness_residual(
    total: Tensor,  # shape: (B,), the sum of each map
    explained: Tensor,  # shape: (B,), what it should sum to
) -> Tensor:  # shape: (B,)
    r"""What is missing of a sum, or too much, as a share of what it should be.

    .. math:: \frac{\bigl| \sum_i s_i - (f_c(x) - f_c(x')) \bigr|}{| f_c(x) - f_c(x') |}

    Reads     lower is better: 0 is complete, and a map of zeros has 1.

    Raises:
        InputError: nothing to explain: the score is that of the reference.
    """
    if (nothing := explained == 0).any():
        got = f"the score of the reference in row(s) {nothing.nonzero().flatten().tolist()[:10]}"
        raise InputError("A score other than that of the reference.", got, "another target, reference or input.")
    return (total.to(explained) - explained).abs() / explained.abs()


class Completeness(TokenMetric):
    """How far the sum of a map is from the score that it explains, as a share of that score.

    See `completeness_residual` for the formula. Which score a method decomposes is part of its definition, and must be
    chosen to match: the score itself (DecompX, FullGrad, LRP), which is that of the reference 0; or the score less that
    of an input from which everything is removed (integrated gradients, Shapley values).

    Only the map counts. What a method credits to no patch is missing from it: the CLS token and registers, biases
    where it leaves them out, and whatever its rule does not cover. So DecompX misses the score by the share of the
    biases and of CLS, and FullGrad(rule="frozen") of a model without CLS has 0. (`captum_vit.doctor` compares the score
    with the sum over all tokens and biases, which tells whether the rule is complete.) A factor changes the score, so
    it is meaningful only for maps in the units of the score. It does not tell whether the map is right: any
    permutation of it has the same sum.

    Costs one image pass per sample, two with a `reference`.

    Args:
        reference: removes everything, `Fill()` for instance; None is the reference 0.
        patch_size: of pixel maps in which each patch was repeated over its pixels, as `explain_func` makes them: the
            patches count, not the pixels. None sums maps as they are, and refuses such ones.
        internal_batch_size: images per forward pass.
        **kwargs: Quantus's own; see `TokenMetric`.

    Raises:
        InputError: in a call, a pixel map that is constant on each patch of the model, without `patch_size`; or a score
            that is that of the reference.

    Departs   Quantus's `Completeness` says whether both sides are equal, to the last bit, and its reference is an image
              of black pixels.

    Example:
        >>> Completeness(patch_size=16)(model, x_batch, y_batch, explain_func=explain_func(FullGrad))

    Reference: Sundararajan et al., Axiomatic Attribution for Deep Networks (the axiom).
    """

    name = "Completeness Residual"
    evaluation_category = EvaluationCategory.AXIOMATIC
    score_direction = ScoreDirection.LOWER
    score_range = (0.0, float("inf"))
    level = "absolute"
    compares_maps = False

    def __init__(
        self,
        *,
        reference: Remover | None = None,
        patch_size: int | tuple[int, int] | None = None,
        internal_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_remover(reference)
        patch_of(patch_size)
        self.reference, self.patch_size = reference, patch_size
        self.internal_batch_size = integer_or_none("internal_batch_size", internal_batch_size, hint=IN_MEMORY)

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        total = self._sum(batch)
        return {"score": completeness_residual(total, self._explained(batch))}

    def _explained(self, batch: Batch) -> Tensor:  # shape: (B,)
        if self.reference is None:
            outputs = whole_images(batch.model, batch.inputs, self.internal_batch_size)
            return target_score(outputs, batch.target)
        patch = patch_of(self.patch_size)
        ends = curves(
            batch.model,
            batch.inputs,
            batch.target,
            batch.relevance,
            orders=("mif",),
            remover=batch.model.sharing(self.reference),
            fractions=(0, 1),
            patch_size=patch,
            internal_batch_size=self.internal_batch_size,
            box=batch.box(patch, self.reference.of_tokens),
        )
        whole, empty = ends["mif"].scores.unbind(1)
        return whole - empty

    def _sum(self, batch: Batch) -> Tensor:  # shape: (B,)
        size, patch = (batch.inputs.shape[-2], batch.inputs.shape[-1]), patch_of(self.patch_size)
        maps = batch.relevance.double()
        if patch is not None:
            maps = ranking_map(maps, size, patch, batch.box(patch))
        elif maps.shape[-2:] == size and (repeated := self._repeated(batch, maps)) is not None:
            wanted = "A map of patches, or of pixels with values of their own."
            hint = (
                f"patch_size={repeated[0] if repeated[0] == repeated[1] else repeated}, which counts each patch once."
            )
            raise InputError(wanted, "a map that is constant on each patch of the model", hint)
        return maps.flatten(1).sum(1)

    def _repeated(self, batch: Batch, maps: Tensor) -> Size | None:
        """The size of the model's patches, if a map is constant on each of them."""
        known = batch.model.patches(batch.inputs)
        if known is None or known.patch is None or known.grid == maps.shape[-2:]:
            return None
        means = at_size(maps, known.grid, known.box)
        again = at_size(means, (maps.shape[-2], maps.shape[-1]), known.box)
        return known.patch if (again == maps).flatten(1).all(1).any() else None
