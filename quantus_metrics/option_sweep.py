"""Which value of an option is best? A metric, value by value, over the same images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from quantus.metrics.base import Metric
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_vit.errors import InputError, OptionError
from captum_vit.options import integer, shown
from captum_vit.viz.studies import option_curve
from quantus_metrics.bridge import ExplainFunc, check_explains, sign_of, wrap
from quantus_metrics.statistics import Summary, check_confidence, summarise


@dataclass(frozen=True)
class OptionSweep:
    """A metric's scores for every value of an option; V values, n images."""

    option: str
    values: tuple[Any, ...]
    metric: str
    scores: Tensor  # shape: (V, n), NaN where an image has no score; rows are paired, image by image
    means: tuple[Summary, ...]  # for each value: the mean over images and its interval
    behind: tuple[Summary, ...]  # the same for how far each value is behind the best, image by image

    @property
    def best(self) -> Any:
        """The value with the best mean; the first of several."""
        return next(value for value, lag in zip(self.values, self.behind, strict=True) if lag.mean <= 0)

    @property
    def as_good(self) -> list[Any]:
        """The best value, and those that no difference was found to: the interval of `behind` reaches zero."""
        return [value for value, lag in zip(self.values, self.behind, strict=True) if lag.low <= 0]

    def plot(self) -> Figure:
        """Means and their intervals over the values, the best ringed, those that are as good filled."""
        return option_curve(
            self.option,
            self.values,
            torch.tensor([found.mean for found in self.means]),
            torch.tensor([(found.low, found.high) for found in self.means]),
            best=self.values.index(self.best),
            as_good=[value in self.as_good for value in self.values],
            score=self.metric,
        )

    def __str__(self) -> str:
        lines = [f"{self.option:>10}  {self.metric}"]
        for value, found in zip(self.values, self.means, strict=True):
            mark = ", best" if value == self.best else ", as good" if value in self.as_good else ""
            lines.append(f"{value!s:>10}  {found}{mark}")
        return "\n".join(lines)


def sweep_option(
    metric: Metric,
    explain: ExplainFunc,
    model: nn.Module,
    x_batch: Any,  # shape: (n, C, H, W), an array or a tensor
    y_batch: Any,  # shape: (n,)
    option: str,
    values: Sequence[Any],
    *,
    s_batch: Any = None,  # shape: (n, 1, H, W)
    explain_func_kwargs: dict[str, Any] | None = None,
    batch_size: int = 64,
    confidence: float = 0.95,
    seed: int = 0,
    display_progressbar: bool = True,
    **call: Any,
) -> OptionSweep:
    """Score a method under every value of one of its options.

    The CDAM paper picks the noise of Smooth CDAM in this way, ``stdev`` by fidelity on 200 held-out images:

    >>> sweep = sweep_option(
    ...     Fidelity(patch_size=16), explain_func(LayerSmoothCDAM), model, images, labels, "stdev", [0, 0.25, 0.5, 1]
    ... )  # doctest: +SKIP
    >>> LayerSmoothCDAM(model).attribute(others, targets, stdev=sweep.best)  # doctest: +SKIP

    Every value meets the same images and, where the method draws numbers from torch, the same numbers; so values
    differ only by the option, and are compared image by image (`behind`, `as_good`). Images without a score under
    some value are left out under all. The intervals are those of `quantus_metrics.statistics`.

    Reads     `best`, and `as_good`: among those take the cheapest, or the default.
    Watch     the best of several means is an optimistic number: report it on images that had no part in the choice.
    Costs     for each value what the metric costs, and one map for each image. One image is explained under every
              value first, so that a value that is refused is refused before the work.

    Args:
        metric: any Quantus metric with one score for each image: `Fidelity`, or one of Quantus's own.
        explain: as `explain_func` makes it. For an option of the constructor a function of your own: ``def at(model,
            inputs, targets, layer): return explain_func(lambda m: LayerCDAM(m, layer))(model, inputs, targets)``.
        model: in evaluation mode.
        x_batch: the images.
        y_batch: the classes that are explained.
        option: a keyword of `explain`: of the method's ``attribute``, for `explain_func`.
        values: what it shall be, in the order in which they are drawn.
        s_batch: masks, for metrics that read them.
        explain_func_kwargs: further keywords of `explain`, the same for all values.
        batch_size: images at a time.
        confidence: of the intervals.
        seed: of the method's draws and of the bootstrap. Torch's global state is left as it was.
        display_progressbar: show one.
        call: further keywords of the metric's call: ``softmax=True``.

    Raises:
        InputError: fewer than two images (with scores), targets or scores that are not one for each.
        OptionError: no values, one twice, an option that is fixed already, an impossible confidence or batch size.

    Source: Brocki et al., Class-Discriminative Attention Maps, section 3.3, for what is chosen and how.
    """
    x, y = _array(x_batch), _array(y_batch)
    fixed = explain_func_kwargs or {}
    _check(x, y, option, values, fixed, batch_size, confidence)
    check_explains(explain)
    wrap(model)  # refuses what is no module
    sign = sign_of(metric)
    masks = None if s_batch is None else _array(s_batch)

    def scored(value: Any, progress: tqdm) -> Iterator[list[float]]:
        """The scores of one batch after the other."""
        torch.manual_seed(seed)
        progress.set_description(f"{option}={value}")
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            here = {} if masks is None else {"s_batch": masks[rows]}
            keywords = {**fixed, option: value}
            yield _one_for_each(
                metric(model, x[rows], y[rows], explain_func=explain, explain_func_kwargs=keywords, **here, **call),
                len(x[rows]),
            )
            progress.update(len(x[rows]))

    with torch.random.fork_rng():
        for value in values:
            explain(model=model, inputs=x[:1], targets=y[:1], **{**fixed, option: value})
        with tqdm(total=len(values) * len(x), unit="map", disable=not display_progressbar) as progress:
            scores = np.array([[score for part in scored(value, progress) for score in part] for value in values])
    kept = scores[:, ~np.isnan(scores).any(0)]
    means = tuple(summarise(row, confidence=confidence, seed=seed) for row in kept)
    best = kept[int(np.argmax([sign * found.mean for found in means]))]
    behind = tuple(summarise(sign * (best - row), confidence=confidence, seed=seed) for row in kept)
    return OptionSweep(option, tuple(values), metric.name, torch.from_numpy(scores), means, behind)


def _one_for_each(scores: Any, n: int) -> list[float]:
    found = np.asarray(scores, dtype=np.float64)
    if found.shape != (n,):
        raise InputError(
            f"One score for each of {n} images.", f"scores of shape {found.shape}", "return_aggregate=False."
        )
    return list(found)


def _array(given: Any) -> np.ndarray:
    return given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)


def _check(
    x: np.ndarray,
    y: np.ndarray,
    option: str,
    values: Sequence[Any],
    fixed: dict[str, Any],
    batch_size: int,
    confidence: float,
) -> None:
    if x.ndim < 2 or len(x) < 2 or y.shape != (len(x),):
        raise InputError(
            "At least two images, and a class for each: an interval needs several.",
            f"images of shape {x.shape}, targets of shape {y.shape}",
            "some dozens: the interval of a few is wide.",
        )
    listed = [] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    if not listed or any(value in listed[:i] for i, value in enumerate(listed)):
        raise OptionError("At least one value, and none twice.", shown(values), "values=[0.1, 0.5, 1.0].")
    if option in fixed:
        got = f"{option!r}, which `explain_func_kwargs` holds fixed"
        raise OptionError("An option to vary.", got, "leaving it out there.")
    integer("batch_size", batch_size, hint="batch_size=64.")
    check_confidence(confidence)
