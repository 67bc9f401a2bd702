"""Every script in examples/ runs as a user would run it, and ends well; the page that does not end has test_app.py."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import captum_vit as cv

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(set((ROOT / "examples").glob("*.py")) - set((ROOT / "examples").glob("app*.py")))
WITH_OUT = [script for script in SCRIPTS if '"--out"' in script.read_text(encoding="utf-8")]


def run(script: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    """In an empty folder, so that it depends on no file beside it and leaves none there."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_an_example_runs(script: Path, tmp_path: Path):
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if script in WITH_OUT:
        assert (tmp_path / f"{script.stem}.png").stat().st_size > 10_000


@pytest.mark.parametrize("script", WITH_OUT, ids=[script.stem for script in WITH_OUT])
def test_a_picture_that_is_there_stays(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And that is found out before the work."""
    (tmp_path / "mine.png").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), "--out", "mine.png"])
    with pytest.raises(cv.InputError, match=r"mine\.png"):
        runpy.run_path(str(script), run_name="__main__")
    assert (tmp_path / "mine.png").read_text() == "mine"


def test_a_method_of_ones_own_sits_the_exam():
    """Once it stands in METHODS, without a line more; here two contracts of it."""
    contracts = [f"tests/contracts/{name}.py" for name in ("test_batches", "test_manners")]
    command = [sys.executable, "-m", "pytest", "-p", "examples.your_own_method", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        [*command, "-k", "ValueGrad", *contracts], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) >= 20
