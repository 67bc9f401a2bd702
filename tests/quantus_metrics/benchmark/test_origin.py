"""Results of changed weights or data are not added to those of the old ones."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from accelerate import PartialState
from PIL import Image
from safetensors.torch import load_file, save_file

from captum_vit.errors import InputError
from quantus_metrics.benchmark import command
from quantus_metrics.benchmark.data import DigitScenes, ImageFolder, data_digest
from quantus_metrics.benchmark.origin import check_one_origin, weights_digest
from quantus_metrics.benchmark.rows import FOLDER, Row, read_rows
from quantus_metrics.benchmark.runner import bench_of, run
from quantus_metrics.benchmark.spec import Spec, spec_of, write_spec

Tables = dict[str, Any]


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """Three pictures of two classes, and weights in a file."""
    for seed, name in enumerate(("cat/a.png", "cat/b.png", "dog/c.png")):
        picture(tmp_path / "pictures" / name, seed)
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "weights.safetensors")
    checkpoint = str(tmp_path / "weights.safetensors")
    tables: Tables = {
        "title": "Small",
        "data": {"use": "folder", "options": {"root": str(tmp_path / "pictures")}},
        "model": [{"name": "small", "load": "timm:test_vit", "checkpoint": checkpoint}],
        "method": [{"name": "RawAttention"}],
        "metric": [{"name": "Compactness"}],
    }
    return spec_of(tables)


def other_weights(folder: Path) -> None:
    path = folder / "weights.safetensors"
    weights = load_file(path)
    weights["head.bias"] = weights["head.bias"] + 1
    save_file(weights, path)


def one_pixel(folder: Path) -> None:
    path = folder / "pictures" / "cat" / "b.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)


CHANGES = {
    "weights": (other_weights, "weights of 'small'"),
    "a pixel": (one_pixel, "The data"),
    "a new picture": (lambda folder: picture(folder / "pictures" / "cat" / "d.png", 9), "The data"),
    "a new class, so that numbers move": (lambda folder: picture(folder / "pictures" / "ant" / "a.png", 9), "The data"),
    "a picture less": (lambda folder: (folder / "pictures" / "cat" / "a.png").unlink(), "The data"),
    "a class of another name": (lambda f: (f / "pictures" / "cat").rename(f / "pictures" / "eel"), "The data"),
    "pictures that have changed places": (
        lambda f: shutil.move(f / "pictures" / "cat" / "a.png", f / "pictures" / "dog" / "a.png"), "The data"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "what"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("limit", [1, None], ids=["some", "all"])
def test_a_changed_origin_is_refused(spec: Spec, tmp_path: Path, state: PartialState, change: Any, what: str, limit):
    """Whether something is left to do, or only the report."""
    path, out = tmp_path / "spec.toml", tmp_path / "out"
    path.write_text(write_spec(spec))
    run(bench_of(spec, limit), out, state)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    run(bench_of(spec, limit), out, state)  # the same is no change
    change(tmp_path)
    with pytest.raises(InputError, match=what) as error:
        command.main(arguments(path, out))
    assert "--out" in error.value.hint
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    command.main(arguments(path, tmp_path / "new"))  # the hint, followed


def arguments(spec: Path, out: Path, *more: str) -> Any:
    parser = command.argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([str(spec), "--out", str(out), "--device", "cpu", *more])


def test_results_of_unknown_origin_are_refused(spec: Spec, tmp_path: Path, state: PartialState) -> None:
    """As those were that earlier versions wrote."""
    run(bench_of(spec, 1), tmp_path / "out", state)
    (path,) = (tmp_path / "out" / FOLDER).iterdir()
    digest = data_digest(bench_of(spec).data)
    path.write_text(path.read_text().replace(digest, ""))
    with pytest.raises(InputError, match="unknown origin"):
        run(bench_of(spec), tmp_path / "out", state)


def test_processes_that_saw_different_weights_are_noticed() -> None:
    rows = [Row("spec", 0, "", "m", "a", "f", sample, 1.0, data="d", weights=sample) for sample in "ab"]
    with pytest.raises(InputError, match="weights of 'm'"):
        check_one_origin(rows)
    check_one_origin(rows[:1])


def test_digests() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=3)
    digest = weights_digest(model)
    assert weights_digest(model) == digest != weights_digest(model.bfloat16())
    assert data_digest(DigitScenes(2)) == data_digest(DigitScenes(2)) != data_digest(DigitScenes(2, seed=1))

    class Plain:
        def __len__(self) -> int:
            return 2

        def name(self, index: int) -> str:
            return str(index)

    assert data_digest(Plain()) == data_digest(Plain())  # type: ignore[arg-type]


def test_a_name_that_is_not_utf_8_survives(spec: Spec, tmp_path: Path, state: PartialState) -> None:
    root = tmp_path / "pictures"
    name = b"\xff.png".decode("utf-8", "surrogateescape")
    picture(root / "cat" / name, 7)
    torn = root / "dog" / name
    torn.write_bytes(b"no picture")
    path, out = tmp_path / "spec.toml", tmp_path / "out"
    path.write_text(write_spec(spec))
    assert command.main(arguments(path, out)) == 0
    assert {f"cat/{name}", f"dog/{name}"} <= {row.sample for row in read_rows(out, spec.hash).values()}
    assert "dog/\\udcff.png" in (out / "report.html").read_text("utf-8")
    assert command.main(arguments(path, out)) == 0 and len(ImageFolder(str(root))) == 5


SLOW_REPORT = """
import sys, time
from datetime import timedelta
from accelerate import PartialState
from quantus_metrics.benchmark import command
PartialState(cpu=True, timeout=timedelta(seconds=20))  # as little as a launcher may allow
whole = command.report
def slow(*args):
    time.sleep(25)
    return whole(*args)
command.report = slow
parser = command.argparse.ArgumentParser()
command.add_arguments(parser)
sys.exit(command.main(parser.parse_args()))
"""


@pytest.mark.slow
def test_nobody_waits_for_the_report(spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(write_spec(spec))
    (tmp_path / "slow.py").write_text(SLOW_REPORT)
    command_line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    more = [str(tmp_path / "slow.py"), str(tmp_path / "spec.toml"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    done = subprocess.run([*command_line, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out" / "report.html").is_file()
