"""Results of changed weights or data are not added to those of the old ones."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from accelerate import PartialState
from PIL import Image
from safetensors.torch import load_file, save_file

import captum_vit as cv
from captum_vit.errors import InputError
from captum_vit.models.output import probability_of
from quantus_metrics.benchmark import command
from quantus_metrics.benchmark.data import DigitScenes, ImageFolder, data_digest
from quantus_metrics.benchmark.factories import make_model
from quantus_metrics.benchmark.origin import check_one_origin, weights_digest
from quantus_metrics.benchmark.rows import FOLDER, Row, read_rows
from quantus_metrics.benchmark.runner import bench_of, run
from quantus_metrics.benchmark.toml_spec import MethodSpec, MetricSpec, Spec, spec_of, write_spec

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


DATA = {
    "a pixel": one_pixel,
    "a new picture": lambda folder: picture(folder / "pictures" / "cat" / "d.png", 9),
    "a new class, so that numbers move": lambda folder: picture(folder / "pictures" / "ant" / "a.png", 9),
    "a picture less": lambda folder: (folder / "pictures" / "cat" / "a.png").unlink(),
    "a class of another name": lambda folder: (folder / "pictures" / "cat").rename(folder / "pictures" / "eel"),
    "a picture in another class": lambda folder: shutil.move(
        folder / "pictures" / "cat" / "a.png", folder / "pictures" / "dog" / "a.png"
    ),
}
CHANGES = {"weights": (other_weights, "weights of 'small'"), "pictures": (one_pixel, "The data")}


@pytest.mark.parametrize("change", DATA.values(), ids=DATA)
def test_every_change_of_the_data_shows(spec: Spec, tmp_path: Path, change: Any) -> None:
    before = data_digest(bench_of(spec).data)
    assert data_digest(bench_of(spec).data) == before
    change(tmp_path)
    assert data_digest(bench_of(spec).data) != before


@pytest.mark.slow
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


def test_one_logit_has_the_classes_of_two_folders(spec: Spec, tmp_path: Path, state: PartialState) -> None:
    """And a head can be said to be of another kind than the model tells."""
    save_file(timm.create_model("test_vit", num_classes=1).state_dict(), tmp_path / "weights.safetensors")
    spec = replace(spec, metric=[MetricSpec("AOPC", options={"fractions": [0.5]})], method=[MethodSpec("GradSAM")])
    run(bench_of(spec), tmp_path / "out", state)
    rows = [row for row in read_rows(tmp_path / "out", spec.hash).values() if row.metric == "AOPC"]
    assert len({row.score for row in rows}) == 3 and not any(row.error for row in rows), rows
    cpu = torch.device("cpu")
    assert isinstance(make_model(spec.model[0], cpu, "float32"), cv.TwoClasses)
    other = make_model(replace(spec.model[0], checkpoint=None, pretrained=False, head="labels"), cpu, "float32")
    assert isinstance(other, cv.MultiLabel) and probability_of(other) == "sigmoid"


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


@pytest.mark.slow
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


def test_the_report_is_written_after_the_last_wait(
    spec: Spec, tmp_path: Path, state: PartialState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for other processes has a limit in time, and a report may take longer."""
    done: list[str] = []
    whole = command.report
    monkeypatch.setattr(PartialState, "wait_for_everyone", lambda self: done.append("wait"))
    monkeypatch.setattr(command, "report", lambda *args: [done.append("report"), whole(*args)][1])
    (tmp_path / "spec.toml").write_text(write_spec(spec))
    command.main(arguments(tmp_path / "spec.toml", tmp_path / "out"))
    assert "wait" in done and done[-1] == "report"


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


@pytest.mark.full
def test_nobody_waits_for_the_report(spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(write_spec(spec))
    (tmp_path / "slow.py").write_text(SLOW_REPORT)
    command_line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    more = [str(tmp_path / "slow.py"), str(tmp_path / "spec.toml"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    done = subprocess.run([*command_line, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out" / "report.html").is_file()
