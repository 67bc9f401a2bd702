"""What every section of the demonstration does: maps in batches, what a method costs, and the table of marks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from captum.attr import Attribution
from torch import Tensor, nn
from tqdm import tqdm

BATCH = 25


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


@dataclass(frozen=True)
class Mark:
    """What a method got: a value for each column of the section's table."""

    method: str
    values: Mapping[str, float] = field(default_factory=dict)


def explain_all(method: Attribution, asked: Asked, progress: tqdm) -> Tensor:  # shape: (S, ...), as the method's maps
    """One map for each input, in batches."""
    maps = []
    for rows in torch.arange(len(asked)).split(BATCH):
        maps.append(asked.rows(rows).maps(method))
        progress.update(len(rows))
    return torch.cat(maps)


def cost(method: Attribution, model: nn.Module, asked: Asked, repeats: int = 3) -> float:
    """The method's time by the plain forward's on one batch: process time, median of pairs."""
    some = asked.rows(slice(BATCH))

    def plain() -> None:
        with torch.inference_mode():
            model(some.inputs, *some.args)

    def seconds(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    plain()
    return statistics.median(seconds(lambda: some.maps(method)) / seconds(plain) for _ in range(repeats))


def table(marks: Sequence[Mark], columns: Mapping[str, str]) -> str:
    """The marks as Markdown; ``columns`` are their names, each with the format of its numbers."""
    lines = [f"| method | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    for mark in marks:
        cells = (format(mark.values[name], style) for name, style in columns.items())
        lines.append(f"| {mark.method} | {' | '.join(cells)} |")
    return "\n".join(lines)
