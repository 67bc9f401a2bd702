"""The pages in docs/ name things that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_tests_that_pages_name_exist() -> None:
    named = [found for page in (ROOT / "docs").rglob("*.md") for found in NAMED.findall(page.read_text("utf-8"))]
    assert len(named) > 40
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not (ROOT / path).is_file() or f"def {test}(" not in (ROOT / path).read_text("utf-8")
    ]
    assert not missing, "\n".join(missing)
