"""Intervals and comparisons against numbers known by theory, by hand and by enumeration."""

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from captum_vit.errors import InputError, OptionError
from quantus_metrics.statistics import compare, summarise

scores = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [summarise(rng.exponential(size=50), n_resamples=500, confidence=0.9) for _ in range(300)]
    covered = np.mean([one.low <= 1 <= one.high for one in found])
    assert 0.82 < covered < 0.95  # 0.9 in theory; a little less for 50 skewed values


def test_the_interval_is_the_normal_one_for_many_values():
    values = np.random.default_rng(0).standard_normal(2000)
    found = summarise(values)
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(len(values))
    assert (found.mean, found.n, found.skipped) == (values.mean(), 2000, 0)
    assert [found.low, found.high] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.05 * half)


def test_images_without_a_score_are_counted():
    found = summarise([1.0, float("nan"), 3.0, float("nan")])
    assert (found.mean, found.n, found.skipped) == (2, 2, 2)
    assert "2 skipped" in str(found)


def test_equal_scores_have_no_spread():
    assert (summarise([0.25] * 5).low, summarise([0.25] * 5).high) == (0.25, 0.25)


def test_a_figure_of_the_whole_set_has_its_interval():
    rows = np.random.default_rng(0).uniform(size=(200, 2))  # a ratio of totals is no mean of ratios
    found = summarise(rows, lambda drawn: drawn[:, 0].sum() / drawn[:, 1].sum(), n_resamples=999)
    assert found.mean == pytest.approx(rows[:, 0].sum() / rows[:, 1].sum())
    assert found.low < found.mean < found.high
    means = summarise(rows[:, 0], n_resamples=999)
    again = summarise(rows[:, 0], np.mean, n_resamples=999)
    assert [again.low, again.high] == pytest.approx([means.low, means.high], abs=0.01)


@pytest.mark.slow
@given(scores)
@example([0.456, 0.456])  # whose lower end is rounded up, and the upper one down
def test_seeds_repeat_and_the_mean_lies_between(values):
    one, two = (summarise(values, n_resamples=99, seed=3) for _ in range(2))
    assert one == two
    assert min(values) - 1e-9 <= one.low <= one.high <= max(values) + 1e-9


def test_pairs_show_what_intervals_side_by_side_do_not():
    rng = np.random.default_rng(0)
    hard = 10 * rng.standard_normal(100)  # how hard each image is, for both methods
    a, b = hard + 0.5 + 0.1 * rng.standard_normal(100), hard + 0.1 * rng.standard_normal(100)
    assert summarise(a).low < summarise(b).high
    for test in ("permutation", "wilcoxon"):
        found = compare(a, b, test=test)
        assert found.p < 0.001
        assert 0.4 < found.difference.low < 0.5 < found.difference.high < 0.6


def test_p_by_enumeration():
    a, b = np.array([3.0, 1.0, 4.0, 1.5, 9.0, 2.0]), np.array([2.5, 2.0, 1.0, 1.0, 5.0, 2.5])
    flips = np.array(list(product([1, -1], repeat=6)))
    means = (flips * (a - b)).mean(1)
    larger, smaller = np.mean(means >= (a - b).mean()), np.mean(means <= (a - b).mean())
    assert compare(a, b).p == pytest.approx(2 * min(larger, smaller))
    assert compare(a, b, test="wilcoxon").p == pytest.approx(stats.wilcoxon(a, b).pvalue)


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=2, max_size=12))
def test_the_other_way_round_is_the_negative(pairs):
    a, b = np.array(pairs).T
    one, other = compare(a, b, n_resamples=99), compare(b, a, n_resamples=99)
    assert one.difference.mean == -other.difference.mean
    assert 0 <= one.p <= 1


def test_methods_that_agree_on_all_images_do_not_differ():
    for test in ("permutation", "wilcoxon"):
        found = compare([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], test=test)
        assert (found.difference.mean, found.p) == (0, 1)


def test_a_pair_counts_only_where_both_have_a_score():
    found = compare([1.0, float("nan"), 3.0, 5.0], [0.0, 1.0, float("nan"), 3.0])
    assert (found.difference.mean, found.difference.n, found.difference.skipped) == (1.5, 2, 2)


def test_errors():
    with pytest.raises(InputError, match="1 of 2"):
        summarise([1.0, float("nan")])
    with pytest.raises(InputError, match="0 of 0"):
        summarise([])
    with pytest.raises(InputError, match="each image"):
        compare([1.0, 2.0], [1.0])
    with pytest.raises(OptionError, match="confidence"):
        summarise([1.0, 2.0], confidence=95)
    with pytest.raises(OptionError, match="t-test"):
        compare([1.0, 2.0], [1.0, 3.0], test="t-test")
