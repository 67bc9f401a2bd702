"""Box sensitivity: is a region's relevance what the model loses with it?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import InputError, OptionError
from captum_vit.options import IN_MEMORY, boolean, integer, integer_or_none, one_of
from captum_vit.tokens import Box
from quantus_metrics.cells import Size, extent
from quantus_metrics.perturb import Blur, Remover, ranking_map
from quantus_metrics.perturb.box import box_changes, box_sums, draw_boxes
from quantus_metrics.perturb.remove import check_remover
from quantus_metrics.statistics import summarise

from .base import TokenMetric
from .batch import Answers, Batch, Samples
from .panels import Panel


def box_correlation(
    relevance: Tensor,  # shape: (B, h, w) or (B, 1, h, w), of patches or of pixels
    boxes: Tensor,  # shape: (S, n, 3), of `draw_boxes`
    changes: Tensor,  # shape: (B, S, n), of `box_changes`
    image_size: Size,
    box: Box | None = None,
) -> Tensor:  # shape: (B, S), float64 on the CPU
    r"""Pearson's correlation, over boxes of one size, of the relevance in a box and what the target loses by it.

    .. math:: f_\mathrm{box}(s) = r\Bigl( \sum_{i \in \mathrm{box}} S_i,\; f_c(x) - f_c(x \setminus \mathrm{box}) \Bigr)

    Reads     −1 to 1, higher is better; 1 where the model's losses are the map's sums. NaN where one of the two does
              not vary beyond rounding over the boxes: there is no correlation then.
    Costs     nothing beyond the changes, which serve all maps of the same images.

    Args:
        box: the pixels under a map of patches; None is the image.
    """
    sums, losses = box_sums(relevance, boxes, image_size, box), changes.detach().cpu().double()
    rounding = 1e-12 * relevance.detach().cpu().double().abs().flatten(1).mean(1) * image_size[0] * image_size[1]
    r = pearson(sums, losses)
    vary = (_spread(sums) > rounding.unsqueeze(1)) & (_spread(losses) > 0)
    return r.where(vary, torch.nan)


def pearson(
    x: Tensor,  # shape: (..., n)
    y: Tensor,  # shape: (..., n)
) -> Tensor:  # shape: (...)
    """The cosine between what is left of both when their means are taken away."""
    x, y = (values - values.mean(-1, keepdim=True) for values in (x, y))
    return F.cosine_similarity(x, y, dim=-1, eps=torch.finfo(x.dtype).tiny).clamp(-1, 1)


def _spread(values: Tensor) -> Tensor:
    return values.amax(-1) - values.amin(-1)


def box_area(
    correlation: Tensor,  # shape: (B, S)
    sizes: Sequence[int],
) -> Tensor:  # shape: (B,)
    """The area under f_box(s) by the trapezoid rule; s in patches."""
    return torch.trapezoid(correlation, torch.tensor(sizes, dtype=correlation.dtype, device=correlation.device))


class BoxSensitivity(TokenMetric):
    """How well the relevance in random boxes correlates with what the target's logit loses when they are blurred.

    See `box_correlation` for the formula. Boxes are squares of 1, 2, ... patches, 100 of each size, anywhere in
    the image, the same ones for every image and every method. Costs S · n_boxes + 1 image passes per sample
    for S sizes, fewer where a box is drawn twice: 1,301 at the defaults on a 14 x 14 grid. The boxes are the same for
    all maps of an image, so calls that share `Passes` run them once.

    A sample for which there is no correlation at some size (the map is flat under all boxes, say, or the logit never
    moves) is skipped: its score is NaN, `skipped` counts it, and aggregates leave it out, `numpy.nanmean` being
    the default. ``quantus.evaluate`` takes its own ``agg_func``: give it ``numpy.nanmean`` too.

    Args:
        score: "area" under the correlation over sizes in patches, or its "mean" over sizes.
        sizes: sides of the boxes, in patches, increasing. By default 1, 2, ..., one less than fit in the image.
        n_boxes: of each size.
        patch_size: pixels along a patch. None takes the map's own for maps of patches; for maps of pixels a
            fourteenth of the image's height, which is 16 at 224 pixels.
        on_grid: let boxes begin at patches, so that none is half removed; needed where tokens are dropped.
        remover: how what is in a box goes away; a `Blur` of height / 16 by default.
        seed: of the boxes.
        internal_batch_size: images per forward pass; passes mix sizes.
        return_curves: keep the correlations of the last call, as `curves`, which `plot` draws.
        **kwargs: Quantus's own; see `TokenMetric`.

    Departs   the paper gives neither sizes nor unit nor the sign. Its areas of 12 to 13 fit patches as the unit,
              1 to 27 of them at 28 x 28. We take the loss, f(x) less f(x without the box), so that good is
              positive. It draws boxes for each image; ours are shared, so that methods are compared like with like.

    Example:
        >>> metric = BoxSensitivity(patch_size=16, sizes=(1, 3, 5, 7), return_curves=True)
        >>> scores = metric(model, x_batch, y_batch, explain_func=explain_func(LayerCDAM))
        >>> print(metric.summary())
        >>> metric.plot()

    Reference: Brocki et al., Class-Discriminative Attention Maps, section 3.4.
    """

    name = "Box Sensitivity"
    level = "interval"

    def __init__(
        self,
        *,
        score: Literal["area", "mean"] = "area",
        sizes: Sequence[int] | None = None,
        n_boxes: int = 100,
        patch_size: int | None = None,
        on_grid: bool = False,
        remover: Remover | None = None,
        seed: int = 0,
        internal_batch_size: int | None = None,
        return_curves: bool = False,
        aggregate_func: Callable[[list[float]], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(aggregate_func=aggregate_func or np.nanmean, **kwargs)
        one_of("score", score, ("area", "mean"))
        if score == "area" and sizes is not None and len(sizes) < 2:
            raise OptionError("Two sizes at least, for an area.", repr(sizes), 'score="mean".')
        integer_or_none("patch_size", patch_size, hint="patch_size=16, the model's own, or None.")
        integer_or_none("internal_batch_size", internal_batch_size, hint=IN_MEMORY)
        integer("n_boxes", n_boxes, least=3, hint="n_boxes=100: a correlation of fewer than 3 is meaningless.")
        integer("seed", seed, least=0, hint="seed=0.")
        boolean("on_grid", on_grid)
        boolean("return_curves", return_curves)
        check_remover(remover)
        self.score, self.sizes, self.n_boxes = score, sizes, n_boxes
        self.patch_size, self.on_grid, self.remover = patch_size, on_grid, remover or Blur()
        self.seed, self.internal_batch_size, self.return_curves = seed, internal_batch_size, return_curves
        if score == "mean":
            self.score_range = (-1.0, 1.0)
        elif sizes is not None:
            self.score_range = (float(sizes[0] - sizes[-1]), float(sizes[-1] - sizes[0]))

    def _check(self, samples: Samples, model: Answers, explain_func: Callable[..., np.ndarray] | None) -> None:
        """The boxes fit, and the maps lie on the image."""
        if samples.a_batch is None and self.patch_size is None:
            return  # the maps have it
        image_size = samples.x_batch.shape[-2:]
        map_size, inputs = (
            image_size if samples.a_batch is None else samples.maps().shape[-2:],
            samples[:1].inputs(model),
        )
        box = self._box(model, inputs, map_size)
        if samples.a_batch is not None:
            ranking_map(torch.from_numpy(self._maps(samples)), image_size, box=box)
        self._boxes(image_size, map_size, box)

    def _box(self, answer: Answers, inputs: Tensor, map_size: Size) -> Box:
        """The pixels under the maps, or under what goes as a whole."""
        image_size = (inputs.shape[-2], inputs.shape[-1])
        side = (
            self._patch(image_size, map_size, (0, 0, *image_size)) if self.on_grid and map_size == image_size else None
        )
        patch = None if side is None else (side, side)
        return answer.box_under(map_size, inputs, patch, self.on_grid and self.remover.of_tokens)

    def _patch(self, image_size: Size, map_size: Size, box: Box) -> int:
        if self.patch_size is not None:
            return self.patch_size
        covered = extent(box)
        height, width = covered[0] // map_size[0], covered[1] // map_size[1]
        if height != width:
            raise InputError("Square patches.", f"patches of {height} x {width}", "patch_size=..., in pixels.")
        return height if height > 1 else max(1, image_size[0] // 14)

    def _boxes(self, image_size: Size, map_size: Size, box: Box) -> tuple[Tensor, Sequence[int], int]:
        """Boxes (S, n, 3) in pixels, their sizes in patches, and the pixels of what goes as a whole."""
        patch = self._patch(image_size, map_size, box)
        step, within = (patch, box) if self.on_grid else (1, (0, 0, *image_size))
        sizes = self.sizes or range(1, min(extent(within)) // patch)
        if self.score == "area" and len(sizes) < 2:
            raise InputError(
                "Boxes of two sizes at least, for an area.",
                f"{list(sizes)} patches of {patch} pixels in {image_size[0]} x {image_size[1]}",
                'patch_size=..., in pixels; score="mean".',
            )
        boxes = draw_boxes(extent(within), [size * patch for size in sizes], self.n_boxes, self.seed, step)
        return boxes + boxes.new_tensor([0, *within[:2]]), sizes, step

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        return self._measure_each(batch, [batch.relevance])[0]

    def _measure_each(self, batch: Batch, maps: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """The same passes serve all maps."""
        image_size = (batch.inputs.shape[-2], batch.inputs.shape[-1])
        map_size = (maps[0].shape[-2], maps[0].shape[-1])
        box = self._box(batch.model, batch.inputs, map_size)
        boxes, sizes, step = self._boxes(image_size, map_size, box)
        for relevance in maps:
            ranking_map(relevance, image_size, box=box)  # refuses what is no map of these images
        changes = box_changes(
            batch.model,
            batch.inputs,
            batch.target,
            boxes,
            remover=batch.model.sharing(self.remover),
            step=step,
            internal_batch_size=self.internal_batch_size,
            box=box if self.on_grid else None,
        )
        return [self._scored(box_correlation(one, boxes, changes, image_size, box), sizes) for one in maps]

    def _scored(self, correlation: Tensor, sizes: Sequence[int]) -> dict[str, Tensor]:
        score = box_area(correlation, sizes) if self.score == "area" else correlation.mean(1)
        if skipped := int(score.isnan().sum()):
            warnings.warn(
                f"{skipped} of {len(score)} samples have no box sensitivity: the relevance in the boxes of some size, "
                "or the score without them, does not vary.",
                stacklevel=2,
            )
        kept = {str(size): correlation[:, s] for s, size in enumerate(sizes)} if self.return_curves else {}
        return {"score": score, **kept}

    def panels(self, kept: Collection[str]) -> list[Panel]:
        sizes = sorted(int(name) for name in kept if name.isdecimal())
        if not sizes:
            return []
        names = tuple(map(str, sizes))
        axes = (sizes, "side of the boxes, in patches", "correlation of relevance and loss")
        return [Panel("boxes", *axes, names, lambda found: np.stack([found[name] for name in names], 1))]

    @property
    def skipped(self) -> int:
        """How many samples of the last call have no score."""
        return int(np.isnan(self.scores).sum())

    @property
    def curves(self) -> dict[int, Tensor]:
        """By size in patches: the correlations (N,) of the last call; NaN where there is none."""
        if not self.kept:
            raise InputError(
                "Correlations of a call.",
                "none kept" if self.return_curves else "return_curves=False",
                "BoxSensitivity(return_curves=True), and call it first.",
            )
        return {int(size): correlation for size, correlation in self.kept.items()}

    def _draw(self, ax: Axes | None = None) -> Axes:
        """The mean correlation against the size of the boxes, and its interval."""
        if not self.return_curves:
            return super()._draw(ax)
        ax = ax or plt.subplots()[1]
        found = {size: summarise(r.numpy(), n_resamples=999) for size, r in self.curves.items()}
        ax.plot(list(found), [one.mean for one in found.values()], marker="o")
        low, high = zip(*((one.low, one.high) for one in found.values()), strict=True)
        ax.fill_between(list(found), low, high, alpha=0.2)
        ax.axhline(0, color="black", linewidth=0.5)
        ax.set(xlabel="side of the boxes, in patches", ylabel="correlation of relevance and loss")
        return ax
