"""The table says what the rows say."""

import csv
import io
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from quantus_metrics.benchmark.formats import FORMS, comma_separated, latex, markdown
from quantus_metrics.benchmark.rows import Key, Row
from quantus_metrics.benchmark.runner import RESOURCES, Bench, bench_of
from quantus_metrics.benchmark.table import Table, table_of
from quantus_metrics.benchmark.toml_spec import Spec, spec_of
from quantus_metrics.statistics import compare, summarise

METHODS = {"good": 3.0, "as_good": 3.01, "bad": 1.0, "none": None}


def rows_of(spec: Spec, bench: Bench, scores: dict[str, float | None]) -> dict[Key, Row]:
    draw, rows = np.random.default_rng(0), []
    for method, mean in scores.items():
        for index in range(bench.n):
            score = None if mean is None else mean + 0.2 * float(draw.standard_normal())
            error = "ValueError: no" if score is None else None
            facts = (spec.hash, 0, "", "digits", method)
            rows.append(Row(*facts, "Fidelity", bench.data.name(index), score, {}, error))
        resources = {"images": 4, "seconds": 0.3, "forward_seconds": 0.1, "peak_bytes": 2**21}
        if mean is not None:
            rows.append(Row(*facts, RESOURCES, bench.data.name(0), kept=resources))  # type: ignore[arg-type]
    return {row.key: row for row in rows}


@pytest.fixture
def bench(tables: dict[str, Any]) -> Bench:
    tables |= {
        "title": "Table",
        "data": {"use": "digits", "options": {"scenes": 20}},
        "method": [{"name": name, "use": "GenAtt"} for name in METHODS],
        "metric": [{"name": "Fidelity"}],
        "published": [
            {"model": "digits", "method": "bad", "metric": "Fidelity", "value": 1.5},
            {"model": "digits", "method": "bad", "metric": "ms", "value": 60},
        ],
    }
    return bench_of(spec_of(tables))


@pytest.fixture
def table(bench: Bench) -> Table:
    return table_of(bench, rows_of(bench.spec, bench, METHODS))


def test_figures_are_those_of_the_statistics(bench: Bench, table: Table) -> None:
    rows = rows_of(bench.spec, bench, METHODS)
    scores = {name: [row.score for row in rows.values() if row.method == name and row.score] for name in METHODS}
    cell = table.cells["digits", "Fidelity", "good"]
    assert cell.summary == summarise(scores["good"])
    assert table.cells["digits", "Fidelity", "bad"].p == compare(scores["as_good"], scores["bad"]).p
    assert table.cost["digits", "good"].figures == pytest.approx({"time": 3.0, "ms": 300.0, "MiB": 2.0})
    assert table.cost["digits", "none"].figures == {} and table.cost["digits", "bad"].published == {"ms": 60}


def test_ranks_are_shared_where_there_is_no_difference(table: Table) -> None:
    cells = {name: table.cells["digits", "Fidelity", name] for name in METHODS}
    assert [cells[name].rank for name in METHODS] == [1, 1, 3, None]
    assert cells["none"].summary is None and cells["none"].errors == 40
    assert cells["bad"].difference == pytest.approx(cells["bad"].summary.mean - 1.5)  # type: ignore[union-attr]
    assert cells["good"].difference is None


@pytest.mark.parametrize("n", [5, 6])
def test_five_samples_rank_nothing(bench: Bench, n: int) -> None:
    """Whatever five differences are, chance gives as much in 2 of 32 cases."""
    few = bench_of(bench.spec, limit=n)
    found = table_of(few, rows_of(few.spec, few, METHODS))
    ranks = [found.cells["digits", "Fidelity", name].rank for name in METHODS]
    assert ranks == ([None] * 4 if n == 5 else [1, 1, 3, None])
    assert found.cells["digits", "Fidelity", "good"].summary is not None
    assert all(form(found) for form in FORMS.values())


def test_lower_is_better_where_the_metric_says_so(bench: Bench) -> None:
    spec = spec_of(
        {
            **{key: getattr(bench.spec, key) for key in ("title", "batch_size")},
            "data": {"use": "digits", "options": {"scenes": 20}},
            "model": [{"name": "digits", "load": "demo:digits"}],
            "method": [{"name": name, "use": "GenAtt"} for name in METHODS],
            "metric": [{"name": "Fidelity", "options": {"score": "mif"}}],
        }
    )
    lower = bench_of(spec)
    table = table_of(lower, rows_of(spec, lower, METHODS))
    assert table.higher == {"Fidelity": False}
    assert table.cells["digits", "Fidelity", "bad"].rank == 1


def test_forms(table: Table) -> None:
    text = markdown(table)
    assert "| none | failed (40) |" in text and "paper 1.5" in text and "(3)" in text and "300 paper 60" in text
    assert text.count("**") == 4, "two best ones in bold"
    lines = list(csv.DictReader(io.StringIO(comma_separated(table))))
    assert [line["method"] for line in lines] == list(METHODS)
    assert float(lines[0]["mean"]) == table.cells["digits", "Fidelity", "good"].summary.mean  # type: ignore[union-attr]
    assert lines[3]["mean"] == "" and lines[3]["errors"] == "40"
    assert "\\begin{tabular}" in latex(table) and set(FORMS) == {".md", ".tex", ".csv"}
    assert "as\\_good &" in latex(table)


NASTY = [
    "\\input{/etc/passwd}",
    "a\n\\input{b}",
    "a\r\\input{b}",
    "a\u2028\\input{b}",
    "x^2~$y$ % & # _ {}",
    "a < b > c | d",
    "*a* _b_ `c` [d](e) \\* x_1",
    '=HYPERLINK("http://a.b")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\uff1d1",
]


@pytest.mark.parametrize("name", NASTY)
def test_names_stay_text(tables: dict[str, Any], name: str) -> None:
    """In TeX no command but those that set a sign, in CSV no formula, and each table keeps its lines."""
    tables |= {
        "title": name,
        "model": [{"name": name, "load": "demo:digits"}],
        "method": [{"name": name, "use": "GenAtt"}, {"name": "plain", "use": "GenAtt"}],
        "metric": [{"name": name, "use": "Fidelity"}],
    }
    bench = bench_of(spec_of(tables))
    rows = {
        row.key: replace(row, model=name, metric=name)
        for row in rows_of(bench.spec, bench, {name: -1.0, "plain": 1.0}).values()
        if row.metric != RESOURCES
    }
    table = table_of(bench, {row.key: row for row in rows.values()})
    tex, plain = latex(table), table_of(bench_of(spec_of(tables | PLAIN)), {})
    assert len(tex.splitlines()) == len(latex(plain).splitlines())
    ours = r"\\(begin|end|toprule|midrule|bottomrule|uparrow|downarrow|text(backslash|ascii\w+|less|greater|bar))\b"
    assert not re.search(r"\\[a-zA-Z]", re.sub(ours, "", tex))
    lines = list(csv.reader(io.StringIO(comma_separated(table))))
    assert len(lines) == 3 and not any(cell[:1] in "=+-@\t\r\uff1d" for line in lines for cell in line[:3] if cell)
    assert float(lines[1][3]) < 0, "a figure below zero stays a number"
    assert not re.search("[<>|]", tex)
    assert len(markdown(table).splitlines()) == len(markdown(plain).splitlines())


def test_markup_in_a_name_is_text_and_a_plain_name_stays_as_it_is(tables: dict[str, Any]) -> None:
    tables |= PLAIN | {"title": "A_MIF", "model": [{"name": "*a* _b_ `c` [d](e) \\*", "load": "demo:digits"}]}
    page = markdown(table_of(bench_of(spec_of(tables)), {}))
    title, _, model, *_ = page.splitlines()
    assert title == "# A_MIF"
    assert model == r"## \*a\* \_b\_ \`c\` \[d\](e) \\\*"


PLAIN = {
    "title": "a",
    "model": [{"name": "a", "load": "demo:digits"}],
    "method": [{"name": "a", "use": "GenAtt"}, {"name": "plain", "use": "GenAtt"}],
    "metric": [{"name": "a", "use": "Fidelity"}],
}
