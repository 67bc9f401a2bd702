"""What metrics share whose removals the model was to be trained on: what goes as a whole, and a check of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from captum_vit.errors import UnsupportedModelError
from captum_vit.options import IN_MEMORY, integer, integer_or_none, number
from captum_vit.tokens import Box
from captum_vit.trace.run.found import without_gradients
from quantus_metrics.bridge import logits, to_tensor
from quantus_metrics.cells import Size, extent
from quantus_metrics.perturb import DropTokens, Fill, Remover, ranking_map
from quantus_metrics.perturb.ranks import patch_of
from quantus_metrics.perturb.remove import Answer, bind_over, check_remover

from .base import TokenMetric
from .batch import Answers, Batch, Samples, whole_images
from .perturbation_accuracy import hits_of

QUARTERS = 4  # cells along a side of an image of which no patches are known
AT_ONCE = 64  # images in a pass of the check


@dataclass(frozen=True)
class Cells:
    """What goes as a whole: patches of the model, or rectangles of the image."""

    patch: Size | None  # in pixels; None: each element of a map of patches
    box: Box  # the pixels that they divide
    remover: Remover

    @property
    def grid(self) -> Size:
        """Rows and columns of them, where their size is known."""
        (height, width), (down, across) = extent(self.box), self.patch or (1, 1)
        return height // down, width // across

    def of(self, relevance: Tensor, image: Size) -> Tensor:  # shape: (B, h, w)
        """The mean of a map over each cell."""
        return ranking_map(relevance, image, self.patch, self.box)

    def bind(self, model: Answers, inputs: Tensor) -> Answer:
        """The model's answers without some of them."""
        return bind_over(self.box, model.sharing(self.remover), model, inputs)


class TrainedRemovalMetric(TokenMetric):
    """A metric of what goes when cells go, of a model that was trained on inputs without some of them.

    Args:
        patch_size: pixels along a cell, for maps of pixels. None takes the model's own patches; of models without any
            a quarter of the image along each side.
        remover: how cells go away. None is `DropTokens` where the model has patches, and otherwise `Fill`, the mean
            colour of normalised images.
        least_kept: refuse a model that keeps a smaller share of its right answers when as many cells as the metric
            takes go at random: it was not trained so. It costs two passes for each sample. None does not look.
        seed: of all draws. No other random state is touched.
        internal_batch_size: images per forward pass.
        **kwargs: Quantus's own; see `TokenMetric`.
    """

    def __init__(
        self,
        *,
        patch_size: int | tuple[int, int] | None = None,
        remover: Remover | None = None,
        least_kept: float | None = None,
        seed: int = 0,
        internal_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_remover(remover)
        patch_of(patch_size)
        if least_kept is not None:
            number("least_kept", least_kept, least=0, most=1, hint="least_kept=0.9, or None.")
        self.patch_size, self.remover, self.least_kept = patch_size, remover, least_kept
        self.seed = integer("seed", seed, least=0, hint="seed=0.")
        self.internal_batch_size = integer_or_none("internal_batch_size", internal_batch_size, hint=IN_MEMORY)

    def _taken(self, n_cells: int) -> int:
        """The most cells that go at once."""
        raise NotImplementedError

    def _check(self, samples: Samples, model: Answers, explain_func: Callable[..., np.ndarray] | None) -> None:
        """The maps lie on the cells; and, if that is asked for, the model was trained so."""
        if samples.a_batch is not None:
            maps, one = torch.from_numpy(self._maps(samples)), samples[:1].inputs(model)
            cells = self._cells(model, one, (maps.shape[-2], maps.shape[-1]))
            cells.of(maps, (one.shape[-2], one.shape[-1]))
        if self.least_kept is not None:
            self._refuse_untrained(model, samples, self.least_kept)

    def _cells(self, model: Answers, inputs: Tensor, size: Size) -> Cells:
        """For maps of this size."""
        image = (inputs.shape[-2], inputs.shape[-1])
        patches, patch = model.patches(inputs), patch_of(self.patch_size)
        remover = self.remover or (Fill() if patches is None else DropTokens())
        if patch is None and size == image:
            patch = (image[0] // QUARTERS, image[1] // QUARTERS) if patches is None else patches.patch
        return Cells(patch, model.box_under(size, inputs, patch, remover.of_tokens), remover)

    def _bound(self, batch: Batch) -> tuple[Tensor, Answer]:
        """The map by cells, (B, h, w), and the model's answers without some of them."""
        image, size = batch.inputs.shape[-2:], batch.relevance.shape[-2:]
        cells = self._cells(batch.model, batch.inputs, (size[0], size[1]))
        return cells.of(batch.relevance, (image[0], image[1])), cells.bind(batch.model, batch.inputs)

    @without_gradients
    def _refuse_untrained(self, model: Answers, samples: Samples, least: float) -> None:
        one = samples[:1].inputs(model)
        cells, hits = self._cells(model, one, (one.shape[-2], one.shape[-1])), hits_of(model)
        (h, w), right, kept = cells.grid, 0.0, 0.0
        lots, at_once = torch.rand(len(samples), h * w, generator=self._lot()), self.internal_batch_size or AT_ONCE
        for start in range(0, len(samples), at_once):
            rows = slice(start, start + at_once)
            inputs, target = samples[rows].inputs(model), to_tensor(samples[rows].y_batch, one.device).long()
            gone = (lots[rows].argsort(1).argsort(1) < self._taken(h * w)).view(-1, h, w).to(one.device)
            whole = hits(whole_images(model, inputs), target)
            left = hits(logits(cells.bind(model, inputs)(torch.arange(len(inputs), device=one.device), gone)), target)
            right, kept = right + whole.sum().item(), kept + (whole * left).sum().item()
        if right == 0 or kept < least * right:
            raise UnsupportedModelError(
                f"A model that keeps {least:.0%} of its right answers without {self._taken(h * w)} of {h * w} random "
                "cells, as one does that was trained so.",
                f"{kept:.0f} of {right:.0f} right answers kept, of {len(samples)} samples",
                "a model fine-tuned on inputs without some cells, as captum_vit.demo.demo_vit(dropped_tokens=True) is.",
            )

    def _lot(self) -> Generator:
        return Generator().manual_seed(self.seed)
