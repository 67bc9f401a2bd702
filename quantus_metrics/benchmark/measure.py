"""One group of samples, one method, its metrics: maps are computed once and shared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
import torch
from captum.attr import Attribution
from quantus.metrics.base import Metric
from torch import Tensor, nn

from captum_vit.errors import OptionError
from quantus_metrics.benchmark.group import Group, reason
from quantus_metrics.bridge import explain_func, pixels_of, to_array, to_tensor
from quantus_metrics.metrics import Passes, TokenMetric


@dataclass(frozen=True)
class Finding:
    """A metric's score of a sample, or why there is none."""

    metric: str
    sample: str
    score: float | None = None
    kept: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass
class Maps:
    """A method's maps of one group, by classes: each is computed once.

    A method that samples draws from a seed of the group's own, so its maps depend neither on the order of metrics nor
    on which process works on the group.
    """

    method: Attribution
    options: Mapping[str, Any]
    group: Group
    seed: int = 0
    seconds: float = 0.0
    images: int = 0
    _known: dict[bytes, Tensor] = field(default_factory=dict)

    def __call__(self, model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray:  # shape: (n, 1, h, w)
        """As Quantus calls it; the inputs are those of the group."""
        return to_array(self.of(np.asarray(targets)))

    def of(self, classes: np.ndarray) -> Tensor:  # shape: (n, 1, h, w)
        """The maps of these classes, one for each sample."""
        key = classes.astype(np.int64).tobytes()
        if key not in self._known:
            target = torch.as_tensor(classes, device=self.group.inputs.device).long()
            start = now(target.device)
            self._known[key] = self._made(self.group.inputs, target)
            self.seconds += now(target.device) - start
            self.images += len(classes)
        return self._known[key]

    def anew(self, model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray:  # shape: (n, 1, h, w)
        """The maps of other inputs, or of the method's model with other weights; they are not kept."""
        like = self.group.inputs
        return to_array(self._made(to_tensor(inputs, like.device, like.dtype), to_tensor(targets, like.device).long()))

    def _made(self, inputs: Tensor, target: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(crc32(f"{self.seed}/{self.group.names}".encode()))
            return _picture(self.method.attribute(inputs, target=target, **self.options))


def now(device: torch.device) -> float:
    """Wall time in seconds, when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(
    maps: Callable[[Group], Maps], group: Group, metrics: Mapping[str, Metric], passes: Passes, seed: int
) -> Iterator[Finding]:
    """Each metric's score of each sample. Where a metric fails on the group, the samples are tried one by one."""
    made = maps(group)
    for name, metric in metrics.items():
        torch.manual_seed(crc32(f"{seed}/{name}/{group.names}".encode()))
        np.random.seed(torch.initial_seed() % 2**32)  # Quantus's own metrics draw from numpy's global state
        try:
            found = list(_asked(name, metric, made, group, passes))
        except Exception as error:  # one bad sample must not stop a run of days; its row holds the error
            if len(group) == 1:
                found = [Finding(name, group.names[0], error=reason(error))]
            else:
                found = [each for one in group.singles() for each in measure(maps, one, {name: metric}, passes, seed)]
        yield from found


def _asked(name: str, metric: Metric, maps: Maps, group: Group, passes: Passes) -> Iterator[Finding]:
    kept: dict[str, Tensor] = {}
    call: dict[str, Any] = {
        "model": passes.model,
        "x_batch": to_array(group.inputs),
        "y_batch": group.labels,
        "s_batch": group.masks,
        "batch_size": len(group),
    }
    if isinstance(metric, TokenMetric):
        explain = maps.anew if metric.explains_anew else maps
        scores = metric(**call, custom_batch=group.wrong, explain_func=explain, passes=passes)
        kept = metric.kept
    else:
        pixels = to_array(pixels_of(maps.of(group.labels), passes.model, group.inputs))
        again = explain_func(maps.method)  # of other inputs, for robustness metrics; refuses another model
        scores = metric(**call, a_batch=pixels, explain_func=again, explain_func_kwargs=dict(maps.options))
    for i, (sample, score) in enumerate(zip(group.names, scores, strict=True)):
        yield Finding(name, sample, float(score), {key: rows[i].tolist() for key, rows in kept.items()})


def _picture(relevance: Any) -> Tensor:  # shape: (n, 1, h, w)
    maps = relevance[0] if isinstance(relevance, tuple) else relevance
    if maps.dim() != 4:
        raise OptionError("A method that gives pictures (n, 1, h, w).", f"shape {tuple(maps.shape)}", 'output="grid"')
    return maps if maps.shape[1] == 1 else maps.sum(1, keepdim=True)
