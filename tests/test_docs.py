"""The pages in docs/ name things that exist, and their code runs as it is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

import captum_vit as cv
from captum_vit.demo import demo_bert, demo_bert_tokenizer
from captum_vit.models.registry import _REGISTRY
from quantus_metrics.benchmark.data import READERS

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "captum_vit" / "models" / "README.md"]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PAGE = (ROOT / "docs" / "how-each-method-was-checked.md").read_text("utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:3] == "| `"]
TWIN = re.compile(r"`(\w+)\.(\w+)`")
TEST = re.compile(r"`(test_\w+\.py)::(\w+)`")
FIGURE = re.compile(r"\d\.\de[-+]\d\d")


def blocks(page: Path) -> list[str]:
    """The code that a page promises to run: its ``python``, not its ``py``, which is to be read alone."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def quantus_page() -> dict[str, Any]:
    """What a reader of that page has at hand."""
    config = ViTConfig(image_size=32, patch_size=16, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                       intermediate_size=48, num_labels=3)  # fmt: skip
    return {
        "hugging_face_model": ViTForImageClassification(config).eval(),
        "x": torch.randn(2, 3, 32, 32).numpy(),
        "y": torch.tensor([0, 2]).numpy(),
        "bert": demo_bert(),
        "tokenizer": demo_bert_tokenizer(),
        "texts": ["The plot was charmless.", "A triumph."],
        "labels": torch.tensor([0, 1]).numpy(),
    }


def models_page() -> dict[str, Any]:
    """A model with the names of that page's example."""
    from examples.your_own_model import Reader

    return {"model": type("MyViT", (Reader,), {})().eval(), "images": torch.randn(2, 3, 32, 32)}


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {"quantus.md": quantus_page, "README.md": models_page}
WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.fixture
def registries() -> Iterator[None]:
    """What a page adds to the lists of methods, models and readers goes again."""
    kept = [(registry, dict(registry)) for registry in (cv.METHODS, READERS, _REGISTRY)]
    yield
    for registry, before in kept:
        registry.clear()
        registry.update(before)


@pytest.mark.slow
@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("page", WITH_CODE, ids=[page.relative_to(ROOT).as_posix() for page in WITH_CODE])
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one namespace and an empty folder."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page", **GIVEN.get(page.name, dict)()}
    for number, code in enumerate(blocks(page), 1):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)


def test_every_tutorial_and_how_to_has_code_that_runs() -> None:
    wanted = [page for page in PAGES if page.parent.name in ("tutorials", "extend")]
    assert len(wanted) >= 12 and set(wanted) <= set(WITH_CODE)


def holds(path: Path, function: str) -> bool:
    return path.is_file() and f"def {function}(" in path.read_text("utf-8")


def test_tests_that_pages_name_exist() -> None:
    named = [found for page in PAGES for found in NAMED.findall(page.read_text("utf-8"))]
    assert len(named) > 40
    missing = [f"{path}::{test}" for path, test in named if not holds(ROOT / path, test)]
    assert not missing, "\n".join(missing)


def test_a_row_of_the_page_of_how_methods_were_checked_has_five_cells_and_names_a_twin() -> None:
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
