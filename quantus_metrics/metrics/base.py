"""Quantus's constructor and call, once for all metrics; an author writes `_measure`, in torch."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from quantus.helpers.enums import DataType, EvaluationCategory, ModelType, ScoreDirection
from quantus.metrics.base import Metric
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_vit.errors import InputError, OptionError
from captum_vit.models.output import probability_of
from captum_vit.options import boolean, integer, shown
from quantus_metrics.bridge import check_explains, n_classes_of, of_classes, wrap
from quantus_metrics.statistics import Summary, summarise

from .batch import (
    Answers,
    Batch,
    Explainer,
    Reading,
    Samples,
    channels_first,
    check_classes,
    checked_batch,
    explainer,
)
from .panels import Panel
from .passes import Passes

Level = Literal["ordinal", "interval", "ratio", "absolute"]
"""Levels of measurement, the ones that keep the most of a map last."""


class TokenMetric(Metric):
    """A Quantus metric whose arithmetic is torch, on the model's device.

    It is called as every Quantus metric is, directly or by ``quantus.evaluate``. A sample's score depends on
    that sample only: `normalise` works on each map by itself, and maps that are negative everywhere, or as
    small as the grid of patches, are as welcome as others. No weight, mode, hook, gradient or random state
    is touched, and no reference to the model is kept.

    An author owes `_measure` and the class attributes below; `_check` for what the metric cannot use.

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

    score_range: tuple[float, float] = (-math.inf, math.inf)
    """The least and the greatest score there can be."""

    softmax: bool = False
    """Whether the metric reads probabilities where the caller does not choose; never of raw scores, such as
    similarities, of which a softmax would be meaningless. Those of a multi-label model are sigmoids."""

    answers: bool = False
    """Whether the metric reads with which classes the model answers."""

    reads_explained: ClassVar[bool] = False
    """Whether the class that `_classes` chose is read too, in place of ``y_batch``."""

    level: Level = "ordinal"
    """What of a map counts, as a level of measurement: its order ("ordinal": any increasing function of it has the same
    score); differences ("interval": a positive factor and an added constant change nothing); ratios ("ratio": a
    positive factor changes nothing); or its values ("absolute")."""

    compares_maps: ClassVar[bool] = True
    """Whether a map that is nearer to what the model uses has a better score. False where the score says something else
    of a map, such as its compactness, or judges the method."""

    explains_anew: ClassVar[bool] = False
    """Whether the metric explains other inputs, or the model with other weights: maps that are kept do not serve."""

    scores: list[float]
    """One per sample, of the last call."""

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
        _refuse_unknown(kwargs, type(self).__init__, TokenMetric.__init__)
        for option, function in (("normalise_func", normalise_func), ("aggregate_func", aggregate_func)):
            if function is not None and not callable(function):
                raise OptionError(f"`{option}` must be a function.", shown(function), f"{option}=None.")
        for name, flag in (("abs", abs), ("normalise", normalise), ("return_aggregate", return_aggregate)):
            boolean(name, flag)
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
        self.scores, self.kept = [], {}

    @abstractmethod
    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        """Tensors with one row per sample: the floats to return under "score", anything to keep beside it."""

    def _measure_each(self, batch: Batch, maps: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """`_measure` for each of several sets of maps of the same samples; overridden where they share passes."""
        return [self._measure(replace(batch, relevance=relevance)) for relevance in maps]

    def panels(self, kept: Collection[str]) -> list[Panel]:
        """Curves that a report draws of what was kept under these names, the figure's own last; none by default."""
        return []

    def _check(self, samples: Samples, model: Answers, explain_func: Callable[..., np.ndarray] | None) -> None:
        """Refuse, before the model answers, what this metric in particular cannot use."""

    def _classes(self, samples: Samples, answer: Answers) -> np.ndarray | None:  # shape: (n,)
        """The classes to explain whatever maps are given; None takes the maps, or explains `y_batch`."""
        return None

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
        passes: Passes | None = None,
        **kwargs: Any,
    ) -> list[float]:
        """Score a map for each sample.

        Args:
            model: in evaluation mode; a Hugging Face model too, wrapped or not.
            x_batch: (N, C, H, W), or (N, H, W, C) if `channel_first` is False (None: seen from the shape). Or token
                ids (N, T) for metrics of curves, with a model of `wrap_text`.
            y_batch: (N,) the classes that the maps explain. A classifier with one logit has the classes 0 and 1 for
                metrics that read probabilities or answers; see `captum_vit.TwoClasses`.
            a_batch: (N, 1, h, w) or (N, h, w), of pixels or patches; (N, C, H, W) is summed over channels.
                Patches of a transformer lie over the pixels that they read, others divide the image evenly.
                (N, T) for texts.
                None calls `explain_func`, batch by batch.
            s_batch: (N, 1, H, W) masks, for the metrics that read them.
            explain_func: as `quantus_metrics.explain_func` makes it.
            explain_func_kwargs: its further keywords.
            model_predict_kwargs: further keywords of the model's forward.
            softmax: read probabilities (of a multi-label model each a sigmoid), or the scores as they are; None is
                the metric's own choice.
            device: handed to `explain_func`. The metric works where the model is.
            batch_size: samples at a time.
            custom_batch: anything with one entry per sample.
            passes: outputs that metrics share which are called on the same samples; see `Passes`.

        Returns:
            One float per sample, or only the aggregate in a list.

        Raises:
            InputError: arrays that do not fit together, are empty, or that the metric cannot use.
            TargetError: a class that the model does not have. It is found before any forward pass where the
                model's head holds their number, else in the first.
            ModelStateError: a model in training mode.
        """
        _refuse_unknown(kwargs, TokenMetric.__call__)
        integer("batch_size", batch_size, hint="batch_size=64.")
        wrap(model)  # refuses what is no module
        self.kept, self.scores, self.evaluation_scores = {}, [], []
        x_batch = channels_first(checked_batch(x_batch), channel_first)
        samples = Samples(x_batch, y_batch, a_batch, s_batch, custom_batch)
        self._check_kind(samples)
        reading = self._reading(model, softmax)
        model = model if reading == "scores" else of_classes(model)
        answer = Answers(model, reading, model_predict_kwargs, passes)
        check_classes(y_batch, n_classes_of(model))
        if samples.a_batch is None:
            check_explains(explain_func)
        self._check(samples, answer, explain_func)

        explain_kwargs = {**({} if device is None else {"device": device}), **(explain_func_kwargs or {})}
        explain = explainer(explain_func, model, explain_kwargs)
        found = []
        for rows in self._batches(len(samples), batch_size):
            found.append(self._measure(self._batch(samples[rows], answer, explain)))

        self.kept = {name: torch.cat([part[name].cpu() for part in found]) for name in found[0]}
        self.scores = self.kept.pop("score").tolist()
        self.evaluation_scores = [self._aggregate()] if self.return_aggregate else self.scores
        self.all_evaluation_scores.extend(self.evaluation_scores)
        return self.evaluation_scores

    def summary(self, confidence: float = 0.95, n_resamples: int = 9999, seed: int = 0) -> Summary:
        """The last call's figure over all its samples, and its bootstrap interval; see `summarise`."""
        if not self.scores:
            raise InputError("The scores of a call.", "none yet", "call the metric first.")
        return self._summarise(confidence=confidence, n_resamples=n_resamples, seed=seed)

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
        self._check_kind(samples)
        reading = self._reading(model)
        model = model if reading == "scores" else of_classes(model)
        check_classes(y_batch, n_classes_of(model))
        answer = Answers(model, reading)
        self._check(samples, answer, None)
        return self._measure(self._batch(samples, answer, explainer(None, model, {})))["score"].tolist()

    def plot(
        self,
        plot_func: Callable[..., Any] | None = None,
        show: bool = True,
        path_to_save: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Draw the last call, save if there is a path, then show (saved after, the file would be blank)."""
        plot_func = plot_func or self.default_plot_func or self._draw
        plot_func(*args, **kwargs)
        if path_to_save:
            plt.savefig(path_to_save, dpi=400)
        if show:
            plt.show()

    def interpret_scores(self) -> None:
        """Print what the score means and which direction is better."""
        meaning = (inspect.getdoc(type(self)) or self.name).split("\n\n")[0]
        print(f"{self.name}: {meaning} {self.score_direction.value.capitalize()} is better.")

    def _reading(self, model: nn.Module, softmax: bool | None = None) -> Reading:
        """What is wanted of the model's outputs."""
        if self.softmax and probability_of(model) is not None if softmax is None else softmax:
            return "probabilities"
        return "answers" if self.answers else "scores"

    def _check_kind(self, samples: Samples) -> None:
        if samples.texts and DataType.TEXT not in self.data_applicability:
            wanted = f"Images (N, C, H, W): {self.name} reads no texts."
            raise InputError(wanted, f"x_batch of {samples.x_batch.shape}", "Deletion, which does.")

    def _batches(self, n: int, batch_size: int) -> Iterator[slice]:
        with tqdm(total=n, disable=not self.display_progressbar) as bar:
            for start in range(0, n, batch_size):
                yield slice(start, start + batch_size)
                bar.update(min(batch_size, n - start))

    def _batch(self, samples: Samples, answer: Answers, explain: Explainer) -> Batch:
        """These samples as tensors, explained if they are not yet."""

        def maps_of(classes: np.ndarray) -> np.ndarray:
            answer.explained = True
            return self._maps(replace(samples, a_batch=explain(samples.x_batch, classes)))

        classes = self._classes(samples, answer)
        if classes is None and samples.a_batch is not None:
            return samples.tensors(answer, self._maps(samples), maps_of)
        if classes is None:
            return samples.tensors(answer, maps_of(samples.y_batch), maps_of)
        read = replace(samples, y_batch=classes) if self.reads_explained else samples
        return read.tensors(answer, maps_of(classes), maps_of)

    def _maps(self, samples: Samples) -> np.ndarray:  # shape: (n, 1, h, w)
        return self._prepared(samples.maps())

    def _prepared(
        self,
        maps: np.ndarray,  # shape: (n, 1, h, w)
    ) -> np.ndarray:  # same shape
        """Normalised each by itself, then made absolute, as chosen."""
        if self.normalise:
            maps = np.concatenate([self.normalise_func(one) for one in np.split(maps, len(maps))])
        return np.abs(maps) if self.abs else maps

    def _aggregate(self) -> float:
        """What `return_aggregate` gives."""
        return self.aggregate_func(self.scores)

    def _summarise(self, **options: Any) -> Summary:
        return summarise(self.scores, **options)

    def _draw(self, ax: Axes | None = None) -> Axes:
        """The picture of a metric that has no other: how the last call's scores are spread."""
        summary, ax = self.summary(), ax or plt.subplots()[1]
        scores = np.array(self.scores)
        ax.hist(scores[np.isfinite(scores)], bins=20, alpha=0.6)
        ax.axvline(summary.mean, color="black", label=str(summary))
        ax.axvspan(summary.low, summary.high, color="black", alpha=0.15)
        ax.set(xlabel=self.name, ylabel="images")
        ax.legend()
        return ax


def _refuse_unknown(kwargs: dict[str, Any], *takers: Callable[..., Any]) -> None:
    """Keywords that no one reads would be options without effect."""
    if kwargs:
        known = [name for taker in takers for name in inspect.signature(taker).parameters if name != "self"]
        near = get_close_matches(next(iter(kwargs)), known, n=3, cutoff=0.4) or known
        raise OptionError("Keywords that are read.", ", ".join(kwargs), f"one of {', '.join(near)}.")
