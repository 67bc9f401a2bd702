"""Does a metric notice? What is known to be worse must score worse, on this model and these images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from quantus.metrics.base import Metric
from torch import nn

from captum_vit.attr import RandomAttribution
from captum_vit.errors import InputError
from captum_vit.options import number, shown
from captum_vit.targets import TwoClasses
from quantus_metrics.bridge import (
    ExplainFunc,
    check_explains,
    explain_func,
    of_classes,
    placement,
    sign_of,
    to_tensor,
    wrap,
)
from quantus_metrics.cells import box_under, patches_of
from quantus_metrics.perturb.ranks import at_size
from quantus_metrics.randomised import randomised
from quantus_metrics.statistics import Summary, check_confidence, summarise


@dataclass(frozen=True)
class Rival:
    """Something worse than the method, and the metric's scores of it.

    Args:
        name: what it is.
        score: the metric's mean over images.
        behind: by how much it is worse than the method, image by image; above 0 is right for any metric.
    """

    name: str
    score: Summary
    behind: Summary

    @property
    def noticed(self) -> bool:
        """Whether the metric distinguishes it from the method: the interval of `behind` lies above zero."""
        return self.behind.low > 0


@dataclass(frozen=True)
class SelfTest:
    """A metric's scores of a method, and of what is worse by construction."""

    metric: str
    higher_is_better: bool
    method: Summary
    rivals: tuple[Rival, ...]

    @property
    def passed(self) -> bool:
        """Whether every rival was noticed."""
        return all(rival.noticed for rival in self.rivals)

    def __str__(self) -> str:
        way = "higher" if self.higher_is_better else "lower"
        rows = [(rival.name, rival.score, rival.behind, "yes" if rival.noticed else "NO") for rival in self.rivals]
        lines = [f"| {self.metric}, {way} is better | score | worse by | noticed |", "|---|--:|--:|---|"]
        lines.append(f"| the method | {self.method} | | |")
        return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def self_test(
    metric: Metric,
    explain: ExplainFunc,
    model: nn.Module,
    x_batch: np.ndarray,  # shape: (n, C, H, W), or (n, T) token ids
    y_batch: np.ndarray,  # shape: (n,)
    *,
    noise: float = 1.0,
    explain_func_kwargs: dict[str, Any] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    verbose: bool = True,
    **call: Any,
) -> SelfTest:
    """Score a method, and three rivals that must score worse, on the same images; print the table.

    The rivals:

    - *with noise*: the method's map and a random one, each standardised, added: ``map + noise * random``.
    - *of a randomised model*: the method's map of a copy of the model, whose weights are shuffled within each
      parameter. The metric runs the model itself. (Quantus's MPRT leaves parameters that no module resets, such as
      the CLS token and the positions, as they were; here all are shuffled.)
    - *RandomAttribution*: a random map.

    Reads     `passed`, or each rival's `noticed`. A metric that notices nothing measures nothing here, or needs more
              images; one that prefers a rival is upside down, or has a blind spot.
    Watch     a metric that does not run the model, such as `Compactness`, need not notice any of them.
    Costs     four times the metric, four sets of maps and two more of random ones.

    Args:
        metric: any Quantus metric with one score for each sample.
        explain: as `explain_func` makes it of a factory; the randomised copy of the model is explained too.
        model: in evaluation mode.
        x_batch: the inputs.
        y_batch: the classes that are explained.
        noise: how much of it; 1 is as much as there is signal.
        explain_func_kwargs: further keywords of `explain`.
        confidence: of the intervals.
        seed: of all draws. Torch's global state is left as it was.
        verbose: print the table.
        call: further keywords of the metric's call: ``s_batch=masks``.

    Raises:
        InputError: fewer than two samples, or scores that are not one for each.
        OptionError: noise that is not positive.

    Example:
        >>> self_test(Deletion(score="aopc", patch_size=16), explain_func(GenAtt), model, x, y).passed  # doctest: +SKIP
        True
    """
    number("noise", noise, above=0, hint="noise=1, as much as there is signal.")
    check_confidence(confidence)
    check_explains(explain)
    wrap(model)  # refuses what is no module
    sign = sign_of(metric)
    if np.ndim(x_batch) == 0 or len(x_batch) < 2:
        raise InputError("At least two samples, for an interval.", shown(x_batch), "some dozens.")
    random, other = explain_func(RandomAttribution), randomised(model, torch.Generator().manual_seed(seed))
    sizes: list[tuple[int, ...]] = []  # of the method's maps, which its rivals share

    def method(model: nn.Module, inputs: Any, targets: Any, **options: Any) -> np.ndarray:
        found = np.asarray(explain(model=model, inputs=inputs, targets=targets, **options))
        sizes.append(found.shape[1:])
        return found

    def blind(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        return _of_size(random(model, inputs, targets), sizes[0], model, inputs)

    def noisy(model: nn.Module, inputs: Any, targets: Any, **options: Any) -> np.ndarray:
        found = method(model, inputs, targets, **options)
        return _standardised(found) + noise * _standardised(blind(model, inputs, targets))

    def of_other(model: nn.Module, inputs: Any, targets: Any, **options: Any) -> np.ndarray:
        same = of_classes(other) if isinstance(model, TwoClasses) else other
        return explain(model=same, inputs=inputs, targets=targets, **options)

    def scores(maps: ExplainFunc, options: dict[str, Any] | None) -> np.ndarray:  # shape: (n,)
        torch.manual_seed(seed)
        found = metric(model, x_batch, y_batch, explain_func=maps, explain_func_kwargs=options or {}, **call)
        if np.shape(found) != (len(x_batch),):
            got = f"scores of shape {np.shape(found)}"
            raise InputError(f"One score for each of {len(x_batch)} samples.", got, "return_aggregate=False.")
        return np.asarray(found, dtype=float)

    with torch.random.fork_rng():
        own = scores(method, explain_func_kwargs)
        worse = {
            f"with noise ({noise:g})": scores(noisy, explain_func_kwargs),
            "of a randomised model": scores(of_other, explain_func_kwargs),
            "RandomAttribution": scores(blind, None),
        }

    def told(rows: np.ndarray) -> Summary:
        return summarise(rows, confidence=confidence, seed=seed)

    rivals = tuple(Rival(name, told(found), told(sign * (own - found))) for name, found in worse.items())
    result = SelfTest(metric.name, sign > 0, told(own), rivals)
    if verbose:
        print(result)
    return result


def _of_size(
    maps: np.ndarray,  # shape: (n, 1, H, W), or (n, T)
    size: tuple[int, ...],  # (h, w) or (C, h, w) of the method's maps; (T,)
    model: nn.Module,
    inputs: Any,  # shape: (n, C, H, W), or (n, T)
) -> np.ndarray:  # shape: (n, *size) with one channel
    """Maps of the size at which the method's are ranked."""
    if maps.ndim != 4:
        return maps
    one, image = to_tensor(inputs[:1], *placement(model)), (maps.shape[-2], maps.shape[-1])
    box = box_under(lambda: patches_of(model, one), size[-2:], image)
    found = at_size(torch.from_numpy(maps), (size[-2], size[-1]), box).numpy()
    return found if len(size) == 3 else found[:, 0]


def _standardised(
    maps: np.ndarray,  # shape: (n, ...)
) -> np.ndarray:  # same shape; each map of mean 0 and deviation 1
    rows = maps.reshape(len(maps), -1)
    rows = rows - rows.mean(1, keepdims=True)
    return (rows / np.maximum(rows.std(1, keepdims=True), np.finfo(rows.dtype).tiny)).reshape(maps.shape)
