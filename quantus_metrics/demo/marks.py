"""What every section of the demonstration does: maps in batches, what a method costs, and the table of marks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor, nn
from tqdm import tqdm

BATCH = 25  # at once
SLOW = 12  # forward passes; dearer methods are marked on a few inputs alone
FEW = 10


@dataclass(frozen=True)
class Asked:
    """Inputs, and the output of the model that is to be explained for each of them."""

    inputs: Tensor  # shape: (S, ...)
    targets: Tensor  # shape: (S,)
    args: tuple[Tensor, ...] = ()  # further arguments of the model, S rows each

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, rows: Tensor | slice) -> Asked:
        """Some of them."""
        return Asked(self.inputs[rows], self.targets[rows], tuple(arg[rows] for arg in self.args))

    def maps(self, method: Attribution) -> Tensor:
        """What the method says of all of them at once."""
        return method.attribute(self.inputs, target=self.targets, additional_forward_args=self.args or None)

    def plain(self, model: nn.Module) -> None:
        """The forward pass that every method is measured by."""
        with torch.inference_mode():
            model(self.inputs, *self.args)


@dataclass(frozen=True)
class Mark:
    """What a method got: a value for each column of the section's table."""

    method: str
    values: Mapping[str, float]


def explained(method: Attribution, model: nn.Module, asked: Asked, progress: tqdm) -> tuple[Tensor, float]:
    """A map for each input, and what it costs: the time by the plain forward's, process time, median over batches.

    Methods that cost more than ``SLOW`` forward passes explain the first ``FEW`` inputs alone.
    """
    maps, ratios = [], []
    one = asked.rows(slice(1))
    one.plain(model)  # what is done once is no cost of a map
    one.maps(method)
    for start in (0, *range(FEW, len(asked), BATCH)):
        some = asked.rows(slice(start, start + BATCH if start else FEW))
        _, plain = _timed(some.plain, model)
        found, took = _timed(some.maps, method)
        maps.append(found)
        ratios.append(took / plain)
        if ratios[0] > SLOW:
            break
    progress.update(len(asked))
    return torch.cat(maps), statistics.median(ratios)


def _timed(work: Callable[[Any], Any], argument: Any) -> tuple[Any, float]:
    """What it gives, and the seconds of process time that it took."""
    start = time.process_time()
    found = work(argument)
    return found, time.process_time() - start


def table(marks: Sequence[Mark], columns: Mapping[str, str]) -> str:
    """The marks as Markdown; ``columns`` are their names, each with the format of its numbers."""
    lines = [f"| method | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    for mark in marks:
        cells = (format(mark.values[name], style) for name, style in columns.items())
        lines.append(f"| {mark.method} | {' | '.join(cells)} |")
    return "\n".join(lines)
