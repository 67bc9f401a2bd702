"""Files that are absent or something else, and lines that ask for the impossible: refused, and nothing is written."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from captum_vit import cli
from quantus_metrics.benchmark.toml_spec import spec_of, write_spec
from tests.malformed.bad import Bad, refused, table
from tests.malformed.files import COMMANDS, FILE_CALLS, SPEC


class Code:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files, of which few are what their names say."""
    found = tmp_path_factory.mktemp("files")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(found / "photo.png")
    (found / "cut.png").write_bytes((found / "photo.png").read_bytes()[:200])
    for name in ("notes.txt", "notes.safetensors", "mine.png", "reviews.png"):
        (found / name).write_text("my notes = ]\n")
    (found / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (found / "code.pth").write_bytes(pickle.dumps(Code()))
    torch.save([1, 2], found / "list.pth")
    save_file({"weight": torch.ones(2)}, found / "other.safetensors")
    save_file(timm.create_model("test_vit").state_dict(), found / "weights.safetensors")
    (found / "empty.toml").touch()
    (found / "deep.json").write_text("[" * 100_000)
    (found / "deep.toml").write_text("a = " + "[" * 5000)
    (found / "date.toml").write_text(write_spec(spec_of(SPEC)).replace("scenes = 2", "scenes = 2026-01-01"))
    (found / "unknown.toml").write_text('titel = "Small"\n')
    (found / "small.toml").write_text(write_spec(spec_of(SPEC)))
    (found / "taken").mkdir()
    (found / "taken" / "table.md").write_text("my table\n")
    (found / "other").mkdir()
    (found / "other" / "spec.toml").write_text(write_spec(spec_of({**SPEC, "seed": 1})))
    return found


def contents(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.md5(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("bad", table(FILE_CALLS))
def test_a_bad_file(bad: Bad, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    before = contents(folder)
    refused(bad)
    assert contents(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("line", [pytest.param(line, id=" ".join(["captum-vit", *line])) for line in COMMANDS])
def test_a_bad_line(line: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Status 2 and some words on stderr: of argparse, or all three of ours; no file comes or changes."""
    monkeypatch.chdir(folder)
    before = contents(folder)
    try:
        status = cli.main(line)
        said = capsys.readouterr().err
        assert said.startswith("captum-vit: ") and "\nGot: " in said and "\nTry: " in said
    except SystemExit as error:
        status = error.code
        assert "usage: captum-vit" in capsys.readouterr().err
    assert status == cli.REFUSED
    assert contents(folder) == before
