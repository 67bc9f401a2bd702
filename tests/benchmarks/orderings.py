"""Which of the papers' orderings hold on the digit scenes: the tables that were run, against those that were printed.

    python -m tests.benchmarks.orderings results

`results` holds a folder for each table of examples/tables/demo, as `captum-vit benchmark` makes them. A difference is
of two methods on the same images, positive where the first is better, with its 95 % bootstrap interval; it is called
a difference where a permutation test finds one (p < 0.05), and else the two are level.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from quantus_metrics.benchmark.rows import read_rows
from quantus_metrics.benchmark.runner import Bench, bench_of
from quantus_metrics.benchmark.spec import Published, read_spec
from quantus_metrics.benchmark.table import Table, table_of
from quantus_metrics.statistics import Comparison, compare

TABLES = Path("examples/tables")
PROPOSED = {"cdam": "CDAM", "prediction_maps": "PredicAtt_L", "vtranm": "Ours"}
RENAMED = {"PredicAtt_12": "PredicAtt_L"}  # the last layer of twelve there, of six here
VERDICTS = ("holds", "level", "reversed")


@dataclass(frozen=True)
class Run:
    """A table of the demo that was run, and what its paper printed."""

    name: str  # as of the paper's: cdam_table2
    bench: Bench
    table: Table
    scores: dict[tuple[str, str, str], dict[str, float]]  # by model, metric and method: of each sample
    printed: list[Published]

    def ahead(self, model: str, metric: str, first: str, second: str) -> Comparison:
        """By how much the first method is better than the second."""
        a, b = self.scores[model, metric, first], self.scores[model, metric, second]
        both = sorted(name for name in a.keys() & b.keys() if np.isfinite([a[name], b[name]]).all())
        sign = 1 if self.table.higher[metric] else -1
        return compare([sign * a[name] for name in both], [sign * b[name] for name in both])

    def places(self) -> Iterator[tuple[str, str]]:
        """Models and metrics that have a better and a worse."""
        return ((m, q) for m in self.table.models for q in self.table.metrics if self.table.higher[q] is not None)

    def printed_ahead(self, metric: str, first: str, second: str) -> bool:
        """Whether the paper has the first before the second, on all of its models and data sets."""
        numbers: dict[str, dict[str, float]] = {}
        for each in self.printed:
            if each.metric == metric:
                numbers.setdefault(each.model, {})[RENAMED.get(each.method, each.method)] = each.value
        both = [found for found in numbers.values() if first in found and second in found]
        higher = self.table.higher[metric]
        return bool(both) and all(found[first] != found[second] for found in both) and all(
            (found[first] > found[second]) == higher for found in both
        )


def read_run(spec_path: Path, folder: Path) -> Run:
    """What is in a folder, of as many samples as have rows."""
    spec = read_spec(spec_path)
    rows = read_rows(folder, spec.hash)
    bench = bench_of(spec, limit=len({row.sample for row in rows.values()}))
    scores: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows.values():
        if row.score is not None:
            scores.setdefault((row.model, row.metric, row.method), {})[row.sample] = row.score
    name = spec_path.stem.removeprefix("digits_")
    papers = [path for path in TABLES.glob(f"{name}*.toml") if path.stem == name or path.stem.startswith(f"{name}_")]
    printed = [
        Published(f"{path.stem} {each.model}", each.method, each.metric, each.value)
        for path in papers
        for each in read_spec(path).published
    ]
    return Run(name, bench, table_of(bench, rows), scores, printed)


def verdict(found: Comparison) -> str:
    """Of an ordering that has the first before the second."""
    if found.p >= 0.05:
        return "level"
    return "holds" if found.difference.mean > 0 else "reversed"


def shown(found: Comparison) -> str:
    """A difference and its interval."""
    d = found.difference
    return f"{d.mean:+.3g} [{d.low:+.3g}, {d.high:+.3g}]"


def pairs_of(run: Run) -> Iterator[str]:
    """A line for each metric and model: how many of the orderings in print are here too."""
    for model, metric in run.places():
        found = Counter(
            verdict(run.ahead(model, metric, a, b))
            for a, b in permutations(run.table.methods, 2)
            if run.printed_ahead(metric, a, b)
        )
        if found:
            counts = " | ".join(str(found[word]) for word in VERDICTS)
            yield f"| {run.name} | {model} | {metric} | {found.total()} | {counts} |"


def proposed_of(run: Run) -> Iterator[str]:
    """A line for each metric and model: the paper's own method against the others."""
    ours = next((method for prefix, method in PROPOSED.items() if run.name.startswith(prefix)), None)
    if ours not in run.table.methods:
        return
    own = [method for method in run.table.methods if method.startswith(ours.rsplit("_", 1)[0])]
    rivals = [method for method in run.table.methods if method not in own]
    for model, metric in run.places():
        cells: Mapping[str, float] = {
            rival: cell.summary.mean
            for rival in rivals
            if (cell := run.table.cells[model, metric, rival]).summary is not None
        }
        best = (max if run.table.higher[metric] else min)(cells, key=cells.__getitem__)
        before = [rival for rival in rivals if run.printed_ahead(metric, ours, rival)]
        found = Counter(verdict(run.ahead(model, metric, ours, rival)) for rival in before)
        rank = run.table.cells[model, metric, ours].rank
        yield (
            f"| {run.name} | {model} | {metric} | {rank} of {len(run.table.methods)} "
            f"| {len(before)} of {len(rivals)} | "
            + " | ".join(str(found[word]) for word in VERDICTS)
            + f" | {best} | {shown(run.ahead(model, metric, ours, best))} |"
        )


def sums_of(run: Run) -> Iterator[str]:
    """A line for each method and metric: what PLUS and SkipPLUS change."""
    for method in run.table.methods:
        base = next((m for m in run.table.methods if m in (method[5:-1], f"{method[5:-1]}-Rollout")), None)
        skip = f"Skip{method}"
        if not method.startswith("PLUS(") or base is None or skip not in run.table.methods:
            continue
        for model, metric in run.places():
            changes = [run.ahead(model, metric, first, base) for first in (method, skip)]
            yield f"| {run.name} | {model} | {metric} | {base} | {shown(changes[0])} | {shown(changes[1])} |"


HEADS = {
    "Every ordering in print": (pairs_of, "table | model | metric | orderings in print | hold here | level | reversed"),
    "The paper's own method": (
        proposed_of,
        "table | model | metric | its rank here | rivals it beats in print | of these hold | level | reversed | "
        "best rival here | own less best rival",
    ),
    "PLUS and SkipPLUS": (sums_of, "table | model | metric | method | PLUS less plain | SkipPLUS less plain"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    results = parser.parse_args().results
    specs = sorted((TABLES / "demo").glob("digits_*.toml"))
    runs = [read_run(path, results / path.stem) for path in specs if (results / path.stem).is_dir()]
    print("Samples: " + ", ".join(f"{run.name} {run.bench.n}" for run in runs) + ".")
    for title, (lines, head) in HEADS.items():
        rule = "|".join("---" for _ in head.split("|"))
        print(f"\n## {title}\n\n| {head} |\n|{rule}|")
        for run in runs:
            for line in lines(run):
                print(line, flush=True)


if __name__ == "__main__":
    main()
