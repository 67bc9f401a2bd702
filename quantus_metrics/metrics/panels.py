"""Curves to be drawn of what a metric keeps, one of each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Kept = Mapping[str, np.ndarray]
"""By name: what a metric kept of n samples beside their scores, (n,) or (n, K)."""


@dataclass(frozen=True)
class Panel:
    """One picture of curves: what it is called, its axes, and how its curves are made.

    Args:
        title: which curve of the metric.
        x: K places.
        xlabel: what they are.
        ylabel: what is read there.
        names: what must have been kept.
        of: from that to the curves (n, K).
    """

    title: str
    x: Sequence[float]
    xlabel: str
    ylabel: str
    names: tuple[str, ...]
    of: Callable[[Kept], np.ndarray]

    def curves(self, kept: Sequence[Mapping[str, float | list[float]]]) -> np.ndarray:  # shape: (n, K)
        """Of the samples that have all of it."""
        whole = [sample for sample in kept if all(name in sample for name in self.names)]
        found = self.of({name: np.array([sample[name] for sample in whole]) for name in self.names})
        return found[np.isfinite(found).all(1)] if len(whole) else np.empty((0, len(self.x)))


def side(panel: Panel, name: str) -> Panel:
    """The same of what a metric kept under names that begin with another one: ``"wrong mif"`` in place of ``"mif"``."""
    names = tuple(f"{name} {each}" for each in panel.names)

    def of(kept: Kept) -> np.ndarray:
        return panel.of({each: kept[f"{name} {each}"] for each in panel.names})

    return Panel(f"{panel.title}, map of the {name} class", panel.x, panel.xlabel, panel.ylabel, names, of)


def less(one: Panel, other: Panel, title: str) -> Panel:
    """The difference of two with the same axes."""
    names = tuple(dict.fromkeys((*one.names, *other.names)))
    return Panel(title, one.x, one.xlabel, one.ylabel, names, lambda kept: one.of(kept) - other.of(kept))
