"""docs/compatibility.md tells what is so: every pair of a model and a method, and the lowest versions."""

from __future__ import annotations

import re
from difflib import unified_diff
from itertools import chain

import pytest

import captum_vit as cv
from tests.compatibility import COMMAND, cell, families, page, published, reasons_of, tried, verdicts
from tests.versions import lowest

HINT = f"If that is meant, `{COMMAND}` rewrites docs/compatibility.md:"


@pytest.mark.full
@pytest.mark.usefixtures("a_few_steps")
def test_the_table_is_what_was_seen() -> None:
    _, told = published()
    seen = page(verdicts())
    changes = "\n".join(unified_diff(told.splitlines(), seen.splitlines(), "published", "seen", n=0, lineterm=""))
    assert not changes, f"{HINT}\n{changes}"


@pytest.mark.slow
def test_a_part_of_the_table_is_what_was_seen() -> None:
    """Of every column one method on each model: the next method on the next model, until all had their turn."""
    _, told = published()
    columns = [re.findall("`(.+?)`", line) for line in told.splitlines() if line.startswith("- **")]
    assert sorted(chain.from_iterable(columns)) == sorted(cv.METHODS), HINT
    seen = {
        name: tried([methods[i % len(methods)] for methods in columns], name, case)
        for i, (name, case) in enumerate(families())
    }
    reasons = re.findall(r"^\d+\. (.+)$", told, re.MULTILINE)
    assert reasons_of(seen) == reasons, HINT
    for name, row in seen.items():
        start = f"| {name} | {' | '.join(cell(v, reasons) for v in row.values())} |"
        assert f"\n{start}" in told, f"{HINT}\n{start}"


def test_the_lowest_versions_are_those_that_are_asked_for() -> None:
    """`tests/lowest.sh` runs tests among them, and prints 2.6.0 where 2.6 is asked for."""
    written, _ = published()
    told = dict(re.findall(r"^\| ([\w.-]+) \| ([\d.]+) \|", written, re.MULTILINE))
    assert told.keys() == lowest().keys()
    assert not [f"{name} {bound}" for name, bound in lowest().items() if not f"{told[name]}.".startswith(f"{bound}.")]
