"""The pages in docs/ name things that exist."""

from __future__ import annotations

import re
from pathlib import Path

import captum_vit as cv

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PAGE = (ROOT / "docs" / "how-each-method-was-checked.md").read_text("utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:3] == "| `"]
TWIN = re.compile(r"`(\w+)\.(\w+)`")
TEST = re.compile(r"`(test_\w+\.py)::(\w+)`")
FIGURE = re.compile(r"\d\.\de[-+]\d\d")


def holds(path: Path, function: str) -> bool:
    return path.is_file() and f"def {function}(" in path.read_text("utf-8")


def test_tests_that_pages_name_exist() -> None:
    named = [found for page in (ROOT / "docs").rglob("*.md") for found in NAMED.findall(page.read_text("utf-8"))]
    assert len(named) > 40
    missing = [f"{path}::{test}" for path, test in named if not holds(ROOT / path, test)]
    assert not missing, "\n".join(missing)


def test_every_method_has_a_row_in_the_page_of_how_they_were_checked() -> None:
    assert [row[0].strip("`") for row in ROWS] == list(cv.METHODS)
    assert {len(row) for row in ROWS} == {5}
    assert all(TWIN.search(twin) or twin.startswith("–,") for _, twin, *_ in ROWS)


def test_what_that_page_names_exists() -> None:
    twins = [(f"tests/references/{module}.py", twin) for row in ROWS for module, twin in TWIN.findall(row[1])]
    tests = [(f"tests/captum_vit/attr/{file}", test) for file, test in TEST.findall(PAGE)]
    assert len(twins) > 40 and len(tests) > 30
    missing = [f"{path}: {name}" for path, name in twins + tests if not holds(ROOT / path, name)]
    assert not missing, "\n".join(missing)


def test_differences_in_that_page_are_below_what_its_tests_ask_for() -> None:
    figures = [float(figure) for row in ROWS for figure in FIGURE.findall(row[3])]
    assert len(figures) > 20
    assert max(figures) < 1e-12
