"""The class that maps explain: the one in `y_batch`, or the model's answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from captum_vit.options import one_of
from quantus_metrics.bridge import check_explains

from .base import TokenMetric
from .batch import Answers, Samples, whole_images

Explained = Literal["target", "predicted"]


class ChoosesExplained(TokenMetric):
    """A metric whose maps explain ``y_batch``, or the class that the model answers with.

    Args:
        explained: "target": ``y_batch``, or whatever the given ``a_batch`` explains. "predicted": the model's answer
            to the whole image, which costs one pass for each. The maps are then always made by ``explain_func``; an
            ``a_batch``, which ``quantus.evaluate`` makes for ``y_batch``, is not read.
        **kwargs: Quantus's own; see `TokenMetric`.
    """

    internal_batch_size: int | None = None

    def __init__(self, *, explained: Explained = "target", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.explained = one_of("explained", explained, ("target", "predicted"))
        self.answers = self.answers or explained == "predicted"

    def _check(self, samples: Samples, model: Answers, explain_func: Callable[..., np.ndarray] | None) -> None:
        if self.explained == "predicted":
            check_explains(explain_func)
            samples = replace(samples, a_batch=None)
        super()._check(samples, model, explain_func)

    def _classes(self, samples: Samples, answer: Answers) -> np.ndarray | None:
        if self.explained == "target":
            return None
        return whole_images(answer, samples.inputs(answer), self.internal_batch_size).argmax(1).cpu().numpy()
