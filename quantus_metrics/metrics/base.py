"""Quantus's constructor and call, once for all metrics; an author writes `_measure`, in torch."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib import pyplot as plt
from quantus.helpers.enums import DataType, EvaluationCategory, ModelType, ScoreDirection
from quantus.helpers.warn import check_kwargs
from quantus.metrics.base import Metric
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_vit.errors import InputError, OptionError

from .batch import Batch, Samples, channels_first


class TokenMetric(Metric):
    """A Quantus metric whose arithmetic is torch, on the model's device.

    It is called as every Quantus metric is, alone or by ``quantus.evaluate``. A sample's score depends on
    that sample only: `normalise` works on each map by itself, and maps that are negative everywhere, or as
    small as the grid of patches, are as welcome as others. No weight, mode, hook, gradient or random state
    is touched, and no reference to the model is kept.

    An author owes `_measure` and the class attributes below.

    Args:
        abs: rank the absolute relevance.
        normalise: normalise each map before (no effect on metrics that rank).
        normalise_func: array (1, 1, h, w) -> the same shape; Quantus's `normalise_by_max` by default.
        normalise_func_kwargs: its further keywords.
        return_aggregate: give one aggregated score in place of one per sample.
        aggregate_func: how; `numpy.mean` by default.
        default_plot_func: what `plot` calls.
        disable_warnings: accepted for Quantus's sake; there are none to disable.
        display_progressbar: show one.
    """

    name: ClassVar[str]
    data_applicability: ClassVar[set[DataType]] = {DataType.IMAGE}
    model_applicability: ClassVar[set[ModelType]] = {ModelType.TORCH}
    score_direction: ScoreDirection = ScoreDirection.HIGHER
    evaluation_category: ClassVar[EvaluationCategory] = EvaluationCategory.FAITHFULNESS

    softmax: ClassVar[bool] = False
    """Whether the metric reads probabilities where the caller does not say."""

    kept: dict[str, Tensor]
    """What `_measure` gave besides the scores in the last call, samples first, on the CPU."""

    def __init__(
        self,
        *,
        abs: bool = False,
        normalise: bool = False,
        normalise_func: Callable[..., np.ndarray] | None = None,
        normalise_func_kwargs: dict[str, Any] | None = None,
        return_aggregate: bool = False,
        aggregate_func: Callable[[list[float]], Any] | None = None,
        default_plot_func: Callable[..., Any] | None = None,
        disable_warnings: bool = True,
        display_progressbar: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            abs=abs,
            normalise=normalise,
            normalise_func=normalise_func,
            normalise_func_kwargs=normalise_func_kwargs,
            return_aggregate=return_aggregate,
            aggregate_func=aggregate_func,
            default_plot_func=default_plot_func,
            disable_warnings=disable_warnings,
            display_progressbar=display_progressbar,
            **kwargs,
        )
        self.kept = {}

    @abstractmethod
    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        """Tensors with one row per sample: the floats to return under "score", anything to keep beside it."""

    def __call__(
        self,
        model: nn.Module,
        x_batch: np.ndarray,
        y_batch: np.ndarray,
        a_batch: np.ndarray | None = None,
        s_batch: np.ndarray | None = None,
        channel_first: bool | None = None,
        explain_func: Callable[..., np.ndarray] | None = None,
        explain_func_kwargs: dict[str, Any] | None = None,
        model_predict_kwargs: dict[str, Any] | None = None,
        softmax: bool | None = None,
        device: str | None = None,
        batch_size: int = 64,
        custom_batch: Any = None,
        **kwargs: Any,
    ) -> list[float]:
        """Score a map for each sample.

        Args:
            model: in evaluation mode; a Hugging Face model too, wrapped or not.
            x_batch: (N, C, H, W), or (N, H, W, C) if `channel_first` is False (None: seen from the shape).
            y_batch: (N,) the classes that the maps explain.
            a_batch: (N, 1, h, w) or (N, h, w), of pixels or patches; (N, C, H, W) is summed over channels.
                None asks `explain_func`, batch by batch.
            s_batch: (N, 1, H, W) masks, for the metrics that read them.
            explain_func: as `quantus_metrics.explain_func` makes it.
            explain_func_kwargs: its further keywords.
            model_predict_kwargs: further keywords of the model's forward.
            softmax: read probabilities, or logits; None is the metric's own choice.
            device: handed to `explain_func`. The metric works where the model is.
            batch_size: samples at a time.
            custom_batch: anything with one entry per sample.

        Returns:
            One float per sample, or the aggregate alone in a list.

        Raises:
            InputError: arrays that do not fit together, are empty, or that the metric cannot use.
            ModelStateError: a model in training mode.
        """
        check_kwargs(kwargs)
        self.kept, self.evaluation_scores = {}, []
        x_batch = channels_first(np.asarray(x_batch), channel_first)
        samples = Samples(x_batch, y_batch, a_batch, s_batch, custom_batch)
        softmax = self.softmax if softmax is None else softmax
        explain_kwargs = {**({} if device is None else {"device": device}), **(explain_func_kwargs or {})}

        found = []
        for rows in self._batches(len(samples), batch_size):
            here = samples[rows]
            if here.a_batch is None:
                here = replace(here, a_batch=_explain(explain_func, model, here, explain_kwargs))
            found.append(self._measure(here.tensors(model, self._maps(here), softmax, model_predict_kwargs)))

        self.kept = {name: torch.cat([part[name].cpu() for part in found]) for name in found[0]}
        scores = self.kept.pop("score").tolist()
        self.evaluation_scores = [self.aggregate_func(scores)] if self.return_aggregate else scores
        self.all_evaluation_scores.extend(self.evaluation_scores)
        return self.evaluation_scores

    def evaluate_batch(
        self,
        model: Any,
        x_batch: np.ndarray,
        y_batch: np.ndarray,
        a_batch: np.ndarray,
        s_batch: np.ndarray | None = None,
        custom_batch: Any = None,
        **kwargs: Any,
    ) -> list[float]:
        """Quantus's hook for one batch: the scores of these samples, nothing kept."""
        model = model if isinstance(model, nn.Module) else model.get_model()
        samples = Samples(x_batch, y_batch, a_batch, s_batch, custom_batch)
        return self._measure(samples.tensors(model, self._maps(samples), self.softmax))["score"].tolist()

    def plot(
        self,
        plot_func: Callable[..., Any] | None = None,
        show: bool = True,
        path_to_save: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Draw, save if there is a path, then show (saved after, the file would be blank)."""
        plot_func = plot_func or self.default_plot_func
        if plot_func is None:
            raise OptionError("A `plot_func`.", "none, and this metric has no picture of its own")
        plot_func(*args, **kwargs)
        if path_to_save:
            plt.savefig(path_to_save, dpi=400)
        if show:
            plt.show()

    def interpret_scores(self) -> None:
        """Say what the score tells and which way is better."""
        meaning = (inspect.getdoc(type(self)) or self.name).split("\n\n")[0]
        print(f"{self.name}: {meaning} {self.score_direction.value.capitalize()} is better.")

    def _batches(self, n: int, batch_size: int) -> Iterator[slice]:
        if batch_size < 1:
            raise OptionError("`batch_size` must be at least 1.", repr(batch_size))
        with tqdm(total=n, disable=not self.display_progressbar) as bar:
            for start in range(0, n, batch_size):
                yield slice(start, start + batch_size)
                bar.update(min(batch_size, n - start))

    def _maps(self, samples: Samples) -> np.ndarray:  # shape: (n, 1, h, w)
        """Normalised each by itself, then made absolute, as asked."""
        maps = samples.maps()
        if self.normalise:
            maps = np.concatenate([self.normalise_func(one) for one in np.split(maps, len(maps))])
        return np.abs(maps) if self.abs else maps


def _explain(
    explain_func: Callable[..., np.ndarray] | None,
    model: nn.Module,
    samples: Samples,
    kwargs: dict[str, Any],
) -> np.ndarray:  # shape: (n, 1, h, w) or (n, h, w)
    if not callable(explain_func):
        raise InputError(
            "Maps, or a function that makes them.",
            f"a_batch None and explain_func {explain_func!r}",
            "explain_func=quantus_metrics.explain_func(LayerCDAM).",
        )
    return explain_func(model=model, inputs=samples.x_batch, targets=samples.y_batch, **kwargs)
