"""Every script in examples/ runs as a user would run it, and ends well; the page that does not end has test_app.py."""

import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import captum_vit as cv

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(set((ROOT / "examples").glob("*.py")) - set((ROOT / "examples").glob("app*.py")))
WITH_OUT = [script for script in SCRIPTS if '"--out"' in script.read_text(encoding="utf-8")]


def run(script: Path, folder: Path) -> None:
    """In an empty folder, so that it depends on no file beside it and leaves none there; what it prints goes to files.

    The process is a fork of this one, which has the libraries loaded. What runs every method runs every sixth here.
    """
    if script.stem == "gallery":
        for method in [name for i, name in enumerate(cv.METHODS) if i % 6]:
            del cv.METHODS[method]
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr, sys.argv = os.fdopen(1, "w"), os.fdopen(2, "w"), [str(script)]
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_an_example_runs(script: Path, tmp_path: Path):
    child = multiprocessing.get_context("fork").Process(target=run, args=(script, tmp_path))
    child.start()
    child.join(240)
    alive = child.is_alive()
    child.kill()
    assert not alive and child.exitcode == 0, (tmp_path / "stderr").read_text()
    assert (tmp_path / "stdout").read_text().strip()
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
    """Once it stands in METHODS, without a line more; here three contracts of it."""
    contracts = [f"tests/contracts/{name}.py" for name in ("test_batches", "test_manners", "test_targets")]
    command = [sys.executable, "-m", "pytest", "-p", "examples.your_own_method", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        [*command, "-k", "ValueGrad", *contracts], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) >= 18
