"""From rows to a table: means with intervals, ranks with ties, significance against the best, the printed number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from quantus.helpers.enums import ScoreDirection
from quantus.metrics.base import Metric

from quantus_metrics.benchmark.rows import Key, Row
from quantus_metrics.benchmark.runner import RESOURCES, Bench
from quantus_metrics.benchmark.toml_spec import UNITS
from quantus_metrics.metrics import TokenMetric
from quantus_metrics.statistics import Summary, compare, summarise

ALPHA = 0.05
FEWEST = (
    6  # samples for a rank: of 5 differences that all have one sign, chance gives 2 in 32, which is more than ALPHA
)
COSTS = ("time", *UNITS)


@dataclass(frozen=True)
class Cell:
    """A method under a metric on a model.

    Args:
        summary: the figure of all images and its bootstrap interval; None where too few have a score.
        rank: 1 is best; methods that do not differ significantly from the one above them share its rank. None where
            there are too few samples to find any difference.
        p: how often chance gives such a difference from the best method, on the same images.
        published: what the paper printed.
        errors: samples that failed.
    """

    summary: Summary | None
    rank: int | None = None
    p: float | None = None
    published: float | None = None
    errors: int = 0

    @property
    def difference(self) -> float | None:
        """Ours less the printed number."""
        if self.summary is None or self.published is None:
            return None
        return self.summary.mean - self.published


@dataclass(frozen=True)
class Cost:
    """What a method's maps of a model cost.

    Args:
        figures: "time" of a map by that of a plain forward pass, and "ms" for each image, medians over groups;
            "MiB" that the map of the first image needs at most, above what there was before.
        published: what the paper printed, by "ms" and "MiB"; its device was another.
    """

    figures: Mapping[str, float]
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Cells by model, metric and method; and what the maps cost, by model and method."""

    title: str
    higher: dict[str, bool | None]  # by metric: whether more is better; None where neither is
    cells: dict[tuple[str, str, str], Cell]
    cost: dict[tuple[str, str], Cost]  # by model and method
    chosen: dict[str, list[str]] = field(default_factory=dict)  # by model: what options were chosen, and by what

    @property
    def models(self) -> list[str]:
        """In the order of the spec."""
        return list(dict.fromkeys(model for model, _, _ in self.cells))

    @property
    def metrics(self) -> list[str]:
        """In the order of the spec."""
        return list(dict.fromkeys(metric for _, metric, _ in self.cells))

    @property
    def methods(self) -> list[str]:
        """In the order of the spec."""
        return list(dict.fromkeys(method for _, _, method in self.cells))


def table_of(bench: Bench, rows: Mapping[Key, Row]) -> Table:
    """Everything a reader wants to see, from the rows there are."""
    cells: dict[tuple[str, str, str], Cell] = {}
    higher = {name: _higher(metric) for name, metric in bench.metrics.items()}
    for model in (part.name for part in bench.spec.model):
        for name, metric in bench.metrics.items():
            found = {
                method: [rows[key] for key in _keys(bench, model, method, name) if key in rows]
                for method in bench.methods
            }
            published = {
                each.method: each.value for each in bench.spec.published if (each.model, each.metric) == (model, name)
            }
            for method, cell in _column(metric, found, higher[name], published).items():
                cells[model, name, method] = cell
    chosen = {
        part.name: [str(one) for one in bench.chosen.values() if one.model == part.name] for part in bench.spec.model
    }
    return Table(bench.spec.title, higher, cells, _costs(bench, rows), chosen)


def _keys(bench: Bench, model: str, method: str, metric: str) -> list[Key]:
    return [(model, method, metric, bench.data.name(index)) for index in range(bench.n)]


def _column(
    metric: Metric, found: Mapping[str, list[Row]], higher: bool | None, published: Mapping[str, float]
) -> dict[str, Cell]:
    """One metric on one model: all methods, compared on the images that both have."""
    summaries = {method: _summary(metric, rows) for method, rows in found.items()}
    scores = {
        method: {row.sample: row.score for row in rows if row.score is not None} for method, rows in found.items()
    }
    errors = {method: sum(row.error is not None for row in rows) for method, rows in found.items()}
    ranks, p = _ranked(summaries, scores, higher) if higher is not None else ({}, {})
    return {
        method: Cell(summary, ranks.get(method), p.get(method), published.get(method), errors[method])
        for method, summary in summaries.items()
    }


def _summary(metric: Metric, rows: list[Row]) -> Summary | None:
    """The metric's own figure of a whole set, where it has one; else the mean."""
    good = [row for row in rows if row.score is not None and row.error is None]
    if len(good) < 2:
        return None
    if not isinstance(metric, TokenMetric):
        return summarise([row.score for row in good])
    metric.scores = [row.score for row in good if row.score is not None]
    metric.kept = {name: torch.tensor([row.kept[name] for row in good]) for name in good[0].kept}
    return metric.summary()


def _ranked(
    summaries: Mapping[str, Summary | None], scores: Mapping[str, Mapping[str, float]], higher: bool
) -> tuple[dict[str, int], dict[str, float]]:
    """Ranks with ties, and each method's p against the best; of those that have scores enough."""
    order = sorted(
        (method for method, summary in summaries.items() if summary is not None and summary.n >= FEWEST),
        key=lambda method: summaries[method].mean,  # type: ignore[union-attr]
        reverse=higher,
    )
    ranks, p, top = {}, {}, None
    for place, method in enumerate(order, 1):
        if top is None or _p(scores[top], scores[method]) < ALPHA:
            top, rank = method, place
        ranks[method] = rank
        if method != order[0]:
            p[method] = _p(scores[order[0]], scores[method])
    return ranks, p


def _p(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Of the same images under two methods; 1 where too few were scored under both."""
    both = [name for name in a if name in b and np.isfinite(a[name]) and np.isfinite(b[name])]
    return compare([a[name] for name in both], [b[name] for name in both]).p if len(both) > 1 else 1.0


def _higher(metric: Metric) -> bool | None:
    return {ScoreDirection.HIGHER: True, ScoreDirection.LOWER: False}.get(metric.score_direction)


def _costs(bench: Bench, rows: Mapping[Key, Row]) -> dict[tuple[str, str], Cost]:
    """What maps cost, by model and method."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows.values():
        if row.metric == RESOURCES:
            found.setdefault((row.model, row.method), []).append(row)
    return {
        (model.name, method): Cost(
            _figures([row.kept for row in found.get((model.name, method), [])]),
            {
                printed.metric: printed.value
                for printed in bench.spec.published
                if (printed.model, printed.method) == (model.name, method) and printed.metric in UNITS
            },
        )
        for model in bench.spec.model
        for method in bench.methods
    }


def _figures(groups: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """By name in `COSTS`, as far as they were measured."""
    timed = [kept for kept in groups if "seconds" in kept]
    figures = {}
    if timed:
        figures["time"] = float(np.median([kept["seconds"] / kept["forward_seconds"] for kept in timed]))
        figures["ms"] = 1000 * float(np.median([kept["seconds"] for kept in timed]))
    if peaks := [kept["peak_bytes"] for kept in groups if "peak_bytes" in kept]:
        figures["MiB"] = max(peaks) / 2**20
    return figures
