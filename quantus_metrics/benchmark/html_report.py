"""One page that a person wants to read: table, curves, gallery; self-contained, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from scipy import stats

from quantus_metrics.benchmark.best_worst import gallery
from quantus_metrics.benchmark.rows import Key, Row
from quantus_metrics.benchmark.runner import Bench
from quantus_metrics.benchmark.table import COSTS, Table
from quantus_metrics.metrics import TokenMetric
from quantus_metrics.metrics.panels import Panel

BEST = 7  # curves in colour; more are not distinct
INKS = {"light": "#222222", "dark": "#dddddd"}


@dataclass(frozen=True)
class Plot:
    """A figure twice, for light and for dark pages, as data URIs."""

    title: str
    light: str
    dark: str


def report(bench: Bench, table: Table, rows: Mapping[Key, Row], device: torch.device) -> str:
    """The page, as HTML. Whatever comes from outside, titles, labels and file names, is escaped."""
    environment = Environment(
        loader=PackageLoader("quantus_metrics.benchmark", "."), autoescape=True, undefined=StrictUndefined
    )
    failures = [row for row in rows.values() if row.error is not None]
    return environment.get_template("report.html.j2").render(
        spec=bench.spec,
        table=table,
        costs=COSTS,
        plots=[plot for model in table.models for plot in curves_of(bench, table, model, rows)],
        shelves=gallery(bench, rows, device),
        failures=failures,
        n=bench.n,
        versions=next((row.versions for row in rows.values()), ""),
    )


def curves_of(bench: Bench, table: Table, model: str, rows: Mapping[Key, Row]) -> list[Plot]:
    """For every metric that keeps curves, and everything that it draws of them, the mean curve of each method."""
    plots, names = [], [bench.data.name(index) for index in range(bench.n)]
    for name, metric in bench.metrics.items():
        if not isinstance(metric, TokenMetric):
            continue
        kept = {
            method: [rows[key].kept for key in ((model, method, name, sample) for sample in names) if key in rows]
            for method in _best_first(table, model, name)
        }
        for panel in metric.panels({each for samples in kept.values() for sample in samples for each in sample}):
            lines = {method: curves for method, some in kept.items() if len(curves := panel.curves(some)) > 1}
            if lines:
                title = f"{model}: {name}, {panel.title}"
                plots.append(Plot(title, *(_plot(panel, lines, ink) for ink in INKS.values())))
    return plots


def _best_first(table: Table, model: str, metric: str) -> list[str]:
    """Methods that have a figure."""
    found = {
        method: cell.summary.mean
        for method in table.methods
        if (cell := table.cells[model, metric, method]).summary is not None
    }
    return sorted(found, key=found.__getitem__, reverse=table.higher[metric] is not False)


def _plot(panel: Panel, lines: Mapping[str, np.ndarray], ink: str) -> str:
    """Mean curves, of the best in colour and with 95 % bootstrap bands over images; as a data URI."""
    x = np.array(panel.x)
    style = {"text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "axes.edgecolor": ink}
    with matplotlib.rc_context({**style, "svg.hashsalt": "captum-vit", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        for number, (method, curves) in enumerate(lines.items()):
            if number < BEST:
                low, high = band(curves)
                axes.plot(x, curves.mean(0), color=f"C{number}", label=_literal(method), linewidth=1.5, zorder=3)
                axes.fill_between(x, low, high, color=f"C{number}", alpha=0.15, linewidth=0, zorder=2)
            else:
                rest = f"{len(lines) - BEST} others" if number == BEST else None
                axes.plot(x, curves.mean(0), color="0.5", alpha=0.5, label=rest, linewidth=0.7)
        axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel, xlim=(x[0], x[-1]))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _literal(name: str) -> str:
    """A name that matplotlib neither sets as a formula nor leaves out of the legend."""
    return "\u200b" * name.startswith("_") + name.replace("$", r"\$")


def band(
    curves: np.ndarray,  # shape: (n, K)
) -> tuple[np.ndarray, np.ndarray]:  # shape of each: (K,)
    """Where the mean curve may lie: 95 % percentile bootstrap over images, point by point."""
    draw = np.random.default_rng(0)
    found = stats.bootstrap((curves,), np.mean, axis=0, n_resamples=999, method="percentile", rng=draw, batch=50)
    return found.confidence_interval.low, found.confidence_interval.high
