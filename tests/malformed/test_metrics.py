"""Metrics, removers and what is told from scores refuse what makes no sense."""

from __future__ import annotations

import pytest

from quantus_metrics.metrics import METRICS
from tests.malformed import metrics
from tests.malformed.bad import Bad, refused, table


@pytest.mark.parametrize("bad", table(metrics.METRIC_CALLS))
def test_a_bad_call(bad: Bad):
    refused(bad)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.__name__)
def test_no_option_escapes(metric):
    """Each option of a metric has its bad values in the table."""
    assert set(metrics.taken(metric)) <= set(metrics.VALUES)
