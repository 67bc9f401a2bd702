"""A map as a segmentation of its object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from quantus.helpers.enums import EvaluationCategory
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional as F

from captum_vit.options import one_of
from quantus_metrics.statistics import Summary, summarise

from .batch import Answers, Batch, Samples
from .explained import ChoosesExplained, Explained
from .masks import check_masks, enlarged

Maps = Tensor  # shape: (B, h, w) or (B, 1, h, w), of patches or of pixels
Masks = Tensor  # shape: (B, H, W) or (B, 1, H, W), 1 on the object, 0 beside it, −1 where nothing is known


def foreground(
    maps: Maps,
    size: tuple[int, int],
) -> Tensor:  # shape: (B, H, W), bool
    """Pixels above the mean of their map, after it is enlarged bilinearly.

    Reference: Chefer et al., Transformer Interpretability Beyond Attention Visualization (their threshold is
    the mean of the map scaled to 0 ... 1, which is the same set of pixels).
    """
    maps = maps.unsqueeze(1) if maps.dim() == 3 else maps
    large = F.interpolate(maps, size=size, mode="bilinear", align_corners=False).squeeze(1)
    return large > large.mean((1, 2), keepdim=True)


def confusion(maps: Maps, masks: Masks) -> Tensor:  # shape: (B, 2, 2), pixels: [truth, found], background first
    """How many pixels of background and object were found to be which; unlabelled ones are not counted."""
    _, masks = enlarged(maps, masks)
    found = foreground(maps, (masks.shape[1], masks.shape[2]))
    cells = [[((masks == truth) & (found == bool(said))).sum((1, 2)) for said in (0, 1)] for truth in (0, 1)]
    return torch.stack([torch.stack(row, -1) for row in cells], -2)


def pixel_accuracy(counts: Tensor) -> Tensor:  # shape: (..., 2, 2) to (...)
    """The share of labelled pixels that were found to be what they are."""
    return counts.diagonal(dim1=-2, dim2=-1).sum(-1) / counts.sum((-2, -1))


def iou(counts: Tensor) -> Tensor:  # shape: (..., 2, 2) to (...)
    """Intersection over union, the mean of object's and background's."""
    both = counts.diagonal(dim1=-2, dim2=-1)
    return (both / (counts.sum(-1) + counts.sum(-2) - both)).mean(-1)


def mean_iou(maps: Maps, masks: Masks) -> float:
    """Mean of the intersection over union of object and of background, over the totals of the data set.

    Reads     0 to 1, higher is better.
    Watch     it is a number of the whole set: the mean of single images' values is another one.
    """
    return iou(confusion(maps, masks).sum(0).double()).item()


def two_class_ap(maps: Maps, masks: Masks) -> Tensor:  # shape: (B,)
    """The mAP of Chefer's protocol: one average precision over both classes of all pixels of an image.

    The map R, enlarged bilinearly and scaled to 0 ... 1, is the score of "object", and 1 − R that of
    "background"; both lists go into one ranking. It is the micro average of scikit-learn.

    Reads     0 to 1, higher is better. Half the entries are true, so chance is near 0.5.
    """
    large, masks = enlarged(maps, masks)
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    R = (large - low) / (high - low)
    return torch.tensor(
        [
            average_precision_score(torch.cat([mask == 0, mask == 1]).cpu(), torch.cat([1 - r, r]).cpu())
            for r, mask in _labelled(R, masks)
        ]
    )


def average_precision(maps: Maps, masks: Masks) -> Tensor:  # shape: (B,)
    """The area under precision against recall of the object's pixels, as the map ranks them.

    The map is enlarged by repeating each patch, as the SkipPLUS paper says.

    Reads     0 to 1, higher is better; a random map has the object's share of the image.
    """
    large, masks = enlarged(maps, masks, "nearest")
    return torch.tensor([average_precision_score((mask == 1).cpu(), r.cpu()) for r, mask in _labelled(large, masks)])


def _labelled(maps: Tensor, masks: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each image's labelled pixels, map and mask."""
    return [(one[mask >= 0], mask[mask >= 0]) for one, mask in zip(maps, masks.int(), strict=True)]


OF_COUNTS: dict[str, Callable[[Tensor], Tensor]] = {"iou": iou, "pixel_accuracy": pixel_accuracy}
OF_RANKS: dict[str, Callable[[Maps, Masks], Tensor]] = {"two_class_ap": two_class_ap, "ap": average_precision}


class Segmentation(ChoosesExplained):
    """How well a map, cut at its mean, covers the object that its class names.

    The objects are ``s_batch``: 1 on the object, 0 beside it, −1 where nothing is known. The model is run for nothing
    but the explanations, an embedding of one image, which gives the pixels that its patches read, and the predicted
    classes, where these are explained. Where the model reads no pixel the map is zero.

    A call gives one number per image. The figures that papers print for "iou" and "pixel_accuracy" are of the
    totals of the data set; `return_aggregate` and `summary` give those (the latter with an interval: whole images are
    drawn again). The others are means over images. ``kept["counts"]`` holds the pixel counts of each image of the
    last call, as `confusion` makes them.

    Args:
        score: "iou", the mean of object's and background's (mIoU); "pixel_accuracy"; "two_class_ap", the mAP of the
            same protocol; or "ap", the average precision of the SkipPLUS paper.
        explained: the class that the maps explain: "target", ``y_batch``, or "predicted", the model's answer to the
            whole image, as in the protocol; see `ChoosesExplained`.
        **kwargs: Quantus's own; see `TokenMetric`. An `aggregate_func` of your own is given the numbers per image.

    Departs   the authors enlarge by a fixed factor of 16, we to the size of the mask. SkipPLUS takes the largest
              object of an image as its class: choose ``y_batch`` and ``s_batch`` so.

    Reference: Chefer et al., Transformer Interpretability Beyond Attention Visualization, section 4, which Prediction
    Maps and VTranM follow; SkipPLUS, section 4.2, for "ap".
    """

    name = "Segmentation"
    evaluation_category = EvaluationCategory.LOCALISATION
    score_range = (0.0, 1.0)

    def __init__(
        self,
        *,
        score: Literal["iou", "pixel_accuracy", "two_class_ap", "ap"] = "iou",
        explained: Explained = "target",
        aggregate_func: Callable[[list[float]], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(explained=explained, aggregate_func=aggregate_func, **kwargs)
        self.score = one_of("score", score, OF_COUNTS | OF_RANKS)
        self.level = "ordinal" if score == "ap" else "interval"
        self._of_totals = aggregate_func is None and score in OF_COUNTS

    def _check(self, samples: Samples, model: Answers, explain_func: Callable[..., np.ndarray] | None) -> None:
        super()._check(samples, model, explain_func)
        check_masks(samples, unlabelled=True)
        if samples.a_batch is not None and self.explained == "target":
            samples.box(model)  # refuses maps that lie nowhere

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.masks is not None  # `_check` saw to it
        counts = confusion(batch.on_images("bilinear"), batch.masks)
        if self.score in OF_COUNTS:
            return {"score": OF_COUNTS[self.score](counts.cpu().double()), "counts": counts}
        maps = batch.on_images("nearest-exact" if self.score == "ap" else "bilinear")
        return {"score": OF_RANKS[self.score](maps, batch.masks), "counts": counts}

    def _total(self, counts: np.ndarray) -> float:
        return OF_COUNTS[self.score](torch.from_numpy(counts).sum(0)).item()

    def _aggregate(self) -> float:
        return self._total(self.kept["counts"].double().numpy()) if self._of_totals else super()._aggregate()

    def _summarise(self, **options: Any) -> Summary:
        if not self._of_totals:
            return super()._summarise(**options)
        return summarise(self.kept["counts"].numpy(), self._total, **options)
