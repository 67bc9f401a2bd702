"""Which of the papers' orderings hold on the digit scenes: the tables that were run, against those that were printed.

    python -m tests.benchmarks.orderings results

`results` holds a folder for each table of examples/tables/demo, as `captum-vit benchmark` makes them. A difference is
of two methods on the same images, positive where the first is better, with its 95 % bootstrap interval; it is called
a difference where a permutation test finds one (p < 0.05), and else the two are level.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import numpy as np
from quantus.helpers.enums import ScoreDirection

from quantus_metrics.benchmark.factories import make_metric
from quantus_metrics.benchmark.rows import read_rows
from quantus_metrics.benchmark.toml_spec import Published, read_spec
from quantus_metrics.statistics import Comparison, compare

TABLES = Path("examples/tables")
PROPOSED = {
    "cdam": ("CDAM", "CDAM Integrated", "CDAM Smooth"),
    "prediction_maps": ("PredicAtt_L",),
    "vtranm": ("Ours",),
}
RENAMED = {"PredicAtt_12": "PredicAtt_L"}  # the last layer of twelve there, of six here
VERDICTS = ("holds", "level", "reversed")


@dataclass(frozen=True)
class Run:
    """A table of the demo that was run, and what its paper printed."""

    name: str  # as of the paper's: cdam_table2
    higher: dict[str, bool]  # by metric that has a better and a worse: whether more is better
    means: dict[tuple[str, str], dict[str, float]]  # by model and metric, then method
    ranks: dict[tuple[str, str], dict[str, str]]
    scores: dict[tuple[str, str, str], dict[str, float]]  # by model, metric and method: of each sample
    printed: list[Published]

    @property
    def methods(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(method for cells in self.ranks.values() for method in cells))

    @property
    def samples(self) -> int:
        """As many as any method was measured on."""
        return max(map(len, self.scores.values()))

    def ahead(self, model: str, metric: str, first: str, second: str) -> Comparison:
        """By how much the first method is better than the second."""
        a, b = self.scores[model, metric, first], self.scores[model, metric, second]
        both = sorted(name for name in a.keys() & b.keys() if np.isfinite([a[name], b[name]]).all())
        sign = 1 if self.higher[metric] else -1
        return compare([sign * a[name] for name in both], [sign * b[name] for name in both], n_resamples=1999)

    def printed_ahead(self, metric: str, first: str, second: str) -> bool:
        """Whether the paper has the first before the second, on all of its models and data sets."""
        numbers: dict[str, dict[str, float]] = {}
        for each in self.printed:
            if each.metric == metric:
                numbers.setdefault(each.model, {})[RENAMED.get(each.method, each.method)] = each.value
        both = [found for found in numbers.values() if first in found and second in found]
        sign = 1 if self.higher[metric] else -1
        return bool(both) and all(sign * (found[first] - found[second]) > 0 for found in both)


def read_run(spec_path: Path, folder: Path) -> Run:
    """What is in the folder of a finished run."""
    spec = read_spec(spec_path)
    name = spec_path.stem.removeprefix("digits_")
    scores: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in read_rows(folder, spec.hash).values():
        if row.score is not None:
            scores.setdefault((row.model, row.metric, row.method), {})[row.sample] = row.score
    means: dict[tuple[str, str], dict[str, float]] = {}
    ranks: dict[tuple[str, str], dict[str, str]] = {}
    for line in csv.DictReader((folder / "table.csv").open(encoding="utf-8")):
        if line["rank"]:
            means.setdefault((line["model"], line["metric"]), {})[line["method"]] = float(line["mean"])
            ranks.setdefault((line["model"], line["metric"]), {})[line["method"]] = line["rank"]
    higher = {part.name: make_metric(part).score_direction is ScoreDirection.HIGHER for part in spec.metric}
    papers = [path for path in TABLES.glob(f"{name}*.toml") if path.stem == name or path.stem.startswith(f"{name}_")]
    printed = [
        Published(f"{path.stem} {each.model}", each.method, each.metric, each.value)
        for path in papers
        for each in read_spec(path).published
    ]
    return Run(name, higher, means, ranks, scores, printed)


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
    for model, metric in run.means:
        found = Counter(
            verdict(run.ahead(model, metric, a, b))
            for a, b in permutations(run.methods, 2)
            if run.printed_ahead(metric, a, b)
        )
        if found:
            counts = " | ".join(str(found[word]) for word in VERDICTS)
            yield f"| {run.name} | {model} | {metric} | {found.total()} | {counts} |"


def proposed_of(run: Run) -> Iterator[str]:
    """A line for each metric, model and method that the paper proposes: it against the others."""
    proposed = next((methods for prefix, methods in PROPOSED.items() if run.name.startswith(prefix)), ())
    if not proposed or proposed[0] not in run.methods:
        return
    rivals = [method for method in run.methods if not method.startswith(proposed[0].rsplit("_", 1)[0])]
    for (model, metric), ours in product(run.means, proposed):
        best = (max if run.higher[metric] else min)(rivals, key=run.means[model, metric].__getitem__)
        before = [rival for rival in rivals if run.printed_ahead(metric, ours, rival)]
        found = Counter(verdict(run.ahead(model, metric, ours, rival)) for rival in before)
        rank = run.ranks[model, metric][ours]
        yield (
            f"| {run.name} | {model} | {metric} | {ours} | {rank} of {len(run.methods)} "
            f"| {len(before)} of {len(rivals)} | "
            + " | ".join(str(found[word]) for word in VERDICTS)
            + f" | {best} | {shown(run.ahead(model, metric, ours, best))} |"
        )


def sums(run: Run) -> Iterator[tuple[str, str, str, Comparison, Comparison]]:
    """Model, metric, method, and what PLUS and SkipPLUS make better of it."""
    for method in run.methods:
        inner = re.match(r"PLUS\((.+?)\)", method)
        plain = next((m for m in run.methods if inner and m in (inner[1], f"{inner[1]}-Rollout")), None)
        skip = f"SkipPLUS({inner[1]})" if inner else ""
        if plain is not None and skip in run.methods:
            for model, metric in run.means:
                yield model, metric, plain, *(run.ahead(model, metric, each, plain) for each in (method, skip))


def counted_of(run: Run) -> Iterator[str]:
    """A line for each metric: of how many methods the sums are better, level or worse."""
    found: dict[tuple[str, str], tuple[Counter[str], Counter[str]]] = {}
    for model, metric, _, *changes in sums(run):
        for counter, change in zip(found.setdefault((model, metric), (Counter(), Counter())), changes, strict=True):
            counter[verdict(change)] += 1
    for (model, metric), counters in found.items():
        cells = " | ".join(str(counter[word]) for counter in counters for word in VERDICTS)
        yield f"| {run.name} | {model} | {metric} | {counters[0].total()} | {cells} |"


def sums_of(run: Run) -> Iterator[str]:
    """A line for each method and metric."""
    for model, metric, plain, plus, skip in sums(run):
        yield f"| {run.name} | {model} | {metric} | {plain} | {shown(plus)} | {shown(skip)} |"


HEADS = {
    "Every ordering in print": (pairs_of, "table | model | metric | orderings in print | hold here | level | reversed"),
    "The paper's own method": (
        proposed_of,
        "table | model | metric | method | its rank here | rivals it beats in print | of these hold | level | "
        "reversed | best rival here | own less best rival",
    ),
    "PLUS and SkipPLUS": (
        counted_of,
        "table | model | metric | methods | PLUS better | level | worse | SkipPLUS better | level | worse",
    ),
    "PLUS and SkipPLUS, method by method": (
        sums_of,
        "table | model | metric | method | PLUS less plain | SkipPLUS less plain",
    ),
}


def by_paper(pairs: list[str], proposed: list[str], *_: list[str]) -> Iterator[str]:
    """Sums over metrics and models: of all methods, and of each of the paper's own before its rivals."""
    for lines, first in ((pairs, 5), (proposed, 7)):
        sums: dict[str, Counter[str]] = {}
        for line in lines:
            cells = [cell.strip() for cell in line.split("|")]
            what = "all methods" if lines is pairs else f"{cells[4]} before its rivals"
            counts = dict(zip(VERDICTS, map(int, cells[first : first + 3]), strict=True))
            sums.setdefault(f"{cells[1].split('_table')[0]}, {what}", Counter()).update(counts)
        for row, found in sums.items():
            yield f"| {row} | {found.total()} | " + " | ".join(str(found[word]) for word in VERDICTS) + " |"


def print_table(title: str, head: str, lines: Iterable[str]) -> None:
    """As Markdown."""
    rule = "|".join("---" for _ in head.split("|"))
    print(f"\n## {title}\n\n| {head} |\n|{rule}|", *lines, sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    results = parser.parse_args().results
    specs = sorted((TABLES / "demo").glob("digits_*.toml"))
    runs = [read_run(path, results / path.stem) for path in specs if (results / path.stem / "table.csv").is_file()]
    print("Samples: " + ", ".join(f"{run.name} {run.samples}" for run in runs) + ".")
    found = {title: [line for run in runs for line in lines(run)] for title, (lines, _) in HEADS.items()}
    print_table("By paper", "paper | orderings in print | hold here | level | reversed", by_paper(*found.values()))
    for title, (_, head) in HEADS.items():
        print_table(title, head, found[title])


if __name__ == "__main__":
    main()
