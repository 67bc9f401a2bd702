"""Every notebook in examples/ runs from top to bottom, and shows what it was saved with, if outputs were saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def kinds(notebook: Any) -> list[list[str]]:
    """For each cell of code what it shows, texts, pictures, pages; what libraries remark on stderr is not that."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [[output for output in cell.outputs if output.get("name") != "stderr"] for cell in cells]
    return [sorted({kind for output in cell for kind in output.get("data", [output.output_type])}) for cell in shown]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_runs_and_shows_what_it_was_saved_with(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    saved, notebook = (nbformat.read(path, as_version=4) for _ in range(2))
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": tmp_path}}).execute()
    assert any("image/png" in cell or "text/html" in cell for cell in kinds(notebook))
    if any(kinds(saved)):
        assert kinds(notebook) == kinds(saved)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_is_small_and_tells_nothing_of_the_machine(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text) < 400_000
    assert not [word for word in ("Warning", "Traceback", "/tmp/", str(ROOT), "iopub") if word in text]
