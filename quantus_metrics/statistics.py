"""What a mean over images is worth: its interval, and whether two methods differ on the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from captum_vit.errors import InputError
from captum_vit.options import integer, number, one_of, shown

Statistic = Callable[[np.ndarray], float]

_AT_ONCE = 1_000_000  # numbers drawn at a time, which bounds the memory


@dataclass(frozen=True)
class Summary:
    """A figure of a data set and how far chance among the images may have moved it.

    Args:
        mean: the mean over images, or the figure of the whole set where it is not one.
        low: lower end of the interval.
        high: upper end.
        n: images that went in.
        skipped: images left out because they have no score (NaN).
        confidence: of the interval.
    """

    mean: float
    low: float
    high: float
    n: int
    skipped: int = 0
    confidence: float = 0.95

    def __str__(self) -> str:
        left_out = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}] (n = {self.n}{left_out})"


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same images.

    Args:
        difference: of the first less the second, over the images on which both have a score.
        p: how often chance gives a difference as large, if the methods were alike; two-sided.
        test: which test said so.
    """

    difference: Summary
    p: float
    test: str

    def __str__(self) -> str:
        return f"{self.difference}, p = {self.p:.2g} ({self.test})"


def summarise(
    rows: Sequence[Any] | np.ndarray,  # shape: (n, ...), one row per image
    statistic: Statistic | None = None,
    *,
    confidence: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> Summary:
    """A figure of all images and its bootstrap interval: images are drawn again, with replacement.

    The interval is the percentile one of ``scipy.stats.bootstrap``. It takes these images as a sample of
    more; what another seed of the model or of the method would change, it does not know.

    Args:
        rows: one score per image; NaN are images without one, left out and counted. Rows of any other form
            where `statistic` knows what to do with them.
        statistic: from rows to the figure; the mean by default.
        confidence: of the interval.
        n_resamples: sets of images drawn.
        seed: of the draws.

    Raises:
        InputError: fewer than two images with a score.

    Example:
        >>> summarise([1.0, 2.0, 3.0, float("nan")]).mean
        2.0
    """
    rows = _numbers(rows)
    scored = ~np.isnan(rows).any(axis=tuple(range(1, rows.ndim)))
    kept, n = rows[scored], int(scored.sum())
    _enough(n, len(rows))
    check_confidence(confidence)
    integer("n_resamples", n_resamples, hint="n_resamples=9999.")
    integer("seed", seed, least=0, hint="seed=0.")
    draw = {"confidence_level": confidence, "n_resamples": n_resamples, "method": "percentile"}
    draw |= {"rng": np.random.default_rng(seed), "batch": max(1, _AT_ONCE // n)}
    if statistic is None:
        mean, found = kept.mean(), stats.bootstrap((kept,), np.mean, axis=0, **draw)
    else:
        figure = lambda drawn: statistic(kept[drawn])  # noqa: E731
        mean, found = statistic(kept), stats.bootstrap((np.arange(n),), figure, vectorized=False, **draw)
    low, high = sorted(found.confidence_interval)  # of equal rows the two may differ by one rounding
    return Summary(float(mean), float(low), float(high), n, len(rows) - n, confidence)


def compare(
    a: Sequence[float] | np.ndarray,  # shape: (n,)
    b: Sequence[float] | np.ndarray,  # shape: (n,), of the same images in the same order
    *,
    test: Literal["permutation", "wilcoxon"] = "permutation",
    confidence: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> Comparison:
    r"""Does one method score higher than another on the same images?

    .. math:: \frac{1}{n} \sum_i (a_i - b_i)

    Images differ far more than methods do, so the differences within each image say much more than the two
    intervals side by side: those may overlap where this interval is clear of zero.

    Args:
        a: scores of the first method.
        b: scores of the second.
        test: "permutation" turns the sign of each difference at random, and tests the mean; the smallest p it
            can give is 1 / (n_resamples + 1). "wilcoxon" tests ranks of differences, at once.
        confidence: of the interval.
        n_resamples: of the interval, and of the permutation.
        seed: of the draws.

    Raises:
        InputError: not one pair of scores per image, or fewer than two pairs without NaN.
        OptionError: an unknown test.
    """
    first, second = _numbers(a), _numbers(b)
    if first.ndim != 1 or first.shape != second.shape:
        got = f"shapes {first.shape} and {second.shape}"
        raise InputError("Two scores for each image.", got, "scores of the same images in the same order.")
    one_of("test", test, ("permutation", "wilcoxon"))
    difference = first - second
    summary = summarise(difference, confidence=confidence, n_resamples=n_resamples, seed=seed)
    moved = difference[~np.isnan(difference)]
    return Comparison(summary, _p(moved, test, n_resamples, seed) if moved.any() else 1.0, test)


def _p(difference: np.ndarray, test: str, n_resamples: int, seed: int) -> float:
    if test == "wilcoxon":
        return float(stats.wilcoxon(difference).pvalue)
    found = stats.permutation_test(
        (difference,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, _AT_ONCE // len(difference)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _numbers(given: Any) -> np.ndarray:
    """One row for each image."""
    try:
        found = np.asarray(given, dtype=float)
    except (TypeError, ValueError) as error:
        hint = "the list that a metric's call gave."
        raise InputError("Numbers, a row for each image.", shown(given), hint) from error
    if found.ndim == 0 or np.isinf(found).any():
        got = "one number" if found.ndim == 0 else "infinite ones"
        raise InputError("Finite numbers, a row for each image.", got, "the list of a metric's call; NaN for no score.")
    return found


def _enough(n: int, given: int) -> None:
    if n < 2:
        hint = "more images, or those on which the metric has a score."
        raise InputError("Scores of two images at least, for an interval.", f"{n} of {given}", hint)


def check_confidence(confidence: float) -> None:
    """Refuse what is no share of intervals."""
    number("confidence", confidence, above=0, below=1, hint="confidence=0.95.")
