"""The tables: which method wins, which tests agree, and every mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import rankdata, spearmanr

from tests.benchmarks.verdict.subjects import TRUTH

DRAWS, LEVEL = 400, 95  # bootstrap samples of an interval, and its confidence in percent
NOT_FAITHFUL = ("Compactness", "MPRT", "Completeness")
"""Tests of something other than whether a map is right; they have no vote."""

Scores = Mapping[str, Sequence[float]]
Found = Mapping[str, Mapping[str, Scores | str]]


def tables(found: Found, higher: Mapping[str, int]) -> dict[str, str]:
    """By title. `higher` is 1 for each test where more is better, -1 where less is."""
    good = {
        name: {method: of for method, of in methods.items() if not isinstance(of, str)}
        for name, methods in found.items()
    }
    means = {name: _means(of, higher) for name, of in good.items()}
    return {
        "Mean place of a method, from 0 to 1": _winners(good, higher),
        "Correlation of tests": _agreement(means),
        **{f"Means on {name}": _table(of, higher) for name, of in good.items()},
        "Methods that refuse": _refused(found),
    }


def _means(methods: Mapping[str, Scores], higher: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """By test and method: the mean over samples, larger where the method is better."""
    tests = dict.fromkeys(test for of in methods.values() for test in of)
    return {
        test: {
            name: higher.get(test, 1) * float(np.nanmean(of[test]))
            for name, of in methods.items()
            if test in of and np.isfinite(of[test]).any()
        }
        for test in tests
    }


def _places(means: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """By method: its mean place among the methods, over tests with a vote; 1 is best of all, 0 worst."""
    shares: dict[str, list[float]] = {}
    for test, of in means.items():
        if test not in NOT_FAITHFUL and len(of) > 1:
            ranks = (rankdata(list(of.values())) - 1) / (len(of) - 1)
            for method, rank in zip(of, ranks, strict=True):
                shares.setdefault(method, []).append(rank)
    return {method: float(np.mean(each)) for method, each in shares.items()}


def _winners(good: Mapping[str, Mapping[str, Scores]], higher: Mapping[str, int]) -> str:
    """The mean place of each method on each model, with an interval over samples; best first."""
    rng, drawn = np.random.default_rng(0), {}
    whole = {name: _places(_means(of, higher)) for name, of in good.items()}
    for name, of in good.items():
        n = max(len(scores[TRUTH]) for scores in of.values())
        drawn[name] = [_places(_means(_resampled(of, rng.integers(n, size=n)), higher)) for _ in range(DRAWS)]
    methods = dict.fromkeys(method for of in whole.values() for method in of)
    overall = {m: float(np.mean([of[m] for of in whole.values() if m in of])) for m in methods}
    lines = [f"| method | all | {' | '.join(good)} |", f"|---|--:|{'--:|' * len(good)}"]
    for method in sorted(methods, key=lambda m: (-sum(m in of for of in whole.values()), -overall[m])):
        cells = [
            _with_interval(whole[name][method], [draw[method] for draw in drawn[name]]) if method in whole[name] else ""
            for name in good
        ]
        lines.append(f"| {method} | {overall[method]:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _resampled(methods: Mapping[str, Scores], rows: np.ndarray) -> dict[str, dict[str, list[float]]]:
    """The same samples for every method; a test of fewer samples keeps those it has."""
    return {
        method: {test: [each[i] for i in rows if i < len(each)] or list(each) for test, each in of.items()}
        for method, of in methods.items()
    }


def _with_interval(value: float, draws: Sequence[float]) -> str:
    low, high = np.percentile(draws, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return f"{value:.2f} ({low:.2f}-{high:.2f})"


def _agreement(means: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Spearman's correlation of two tests over the methods, the mean over models that have both."""
    tests = list(dict.fromkeys(test for of in means.values() for test in of))
    found = {pair: _correlation(means, *pair) for pair in combinations(tests, 2)}
    with_truth = {test: found.get((TRUTH, test), 1.0) for test in tests}
    order = sorted(tests, key=lambda test: (test != TRUTH, -with_truth[test]))
    lines = [f"| | {' | '.join(str(i) for i in range(1, len(order) + 1))} |", f"|---|{'--:|' * len(order)}"]
    for i, one in enumerate(order):
        cells = [f"{found.get((one, other), found.get((other, one), 1.0)):.2f}" for other in order[: i + 1]]
        lines.append(f"| {i + 1} {one} | {' | '.join(cells + [''] * (len(order) - i - 1))} |")
    return "\n".join(lines)


def _correlation(means: Mapping[str, Mapping[str, Mapping[str, float]]], one: str, other: str) -> float:
    values = []
    for of in means.values():
        if one in of and other in of:
            both = [method for method in of[one] if method in of[other]]
            values.append(spearmanr([of[one][m] for m in both], [of[other][m] for m in both]).statistic)
    return float(np.nanmean(values)) if values else float("nan")


def _table(methods: Mapping[str, Scores], higher: Mapping[str, int]) -> str:
    """Means with half the width of their interval, best on the evidence first."""
    tests = list(dict.fromkeys(test for of in methods.values() for test in of))
    lines = [f"| method | {' | '.join(t if higher.get(t, 1) > 0 else f'{t} (less)' for t in tests)} |"]
    lines.append(f"|---|{'--:|' * len(tests)}")
    for method in sorted(methods, key=lambda m: -float(np.mean(methods[m][TRUTH]))):
        cells = [_mean(methods[method].get(test, ())) for test in tests]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(scores: Sequence[float]) -> str:
    values = np.array([each for each in scores if np.isfinite(each)])
    if len(values) < 2:
        return ""
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3g} ± {half:.2g}"


def _refused(found: Found) -> str:
    """How many methods each model has no row of."""
    lines = []
    for name, methods in found.items():
        refused = [method for method, of in methods.items() if isinstance(of, str)]
        lines.append(f"- {name}: {', '.join(refused) or 'none'}")
    return "\n".join(lines)
