"""Nothing is lost, nothing counts twice, and the numbers do not depend on who does the work."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState

import captum_vit as cv
from captum_vit import demo
from captum_vit.errors import InputError
from quantus_metrics import explain_func
from quantus_metrics.benchmark import command
from quantus_metrics.benchmark.best_worst import gallery
from quantus_metrics.benchmark.data import Sample
from quantus_metrics.benchmark.rows import FOLDER, Row, RowWriter, read_rows
from quantus_metrics.benchmark.runner import RESOURCES, bench_of, run
from quantus_metrics.benchmark.toml_spec import Spec, spec_of, write_spec
from quantus_metrics.metrics import Fidelity

Tables = dict[str, Any]


def numbers(folder: Path, spec: Spec) -> dict[Any, Any]:
    """What was measured, without what differs from run to run: times."""
    rows = read_rows(folder, spec.hash)
    return {key: (row.score, row.kept, row.error) for key, row in rows.items() if row.metric != RESOURCES}


def lines(folder: Path) -> int:
    return sum(path.read_text().count("\n") for path in (folder / FOLDER).glob("*.jsonl"))


@pytest.mark.slow
def test_it_says_what_a_direct_call_says(tables: Tables, state: PartialState, tmp_path: Path) -> None:
    spec = spec_of(tables | {"batch_size": 10})
    run(bench_of(spec), tmp_path, state)
    found = numbers(tmp_path, spec)
    scenes = demo.digit_scenes(5, 2)
    pixels = (255 * scenes.pixels).round() / 255  # a data set's pictures have whole numbers
    x, y = ((pixels - 0.5) / 0.5).repeat_interleave(2, 0).numpy(), scenes.digits.flatten().numpy()
    metric = Fidelity(fractions=(0.0, 0.5, 1.0), patch_size=8)
    direct = metric(demo.demo_vit(), x, y, explain_func=explain_func(cv.GenAtt))
    ours = [found["digits", "GenAtt", "Fidelity", f"scene-{i:05d}/digit-{j}"][0] for i in range(5) for j in range(2)]
    np.testing.assert_allclose(ours, direct, rtol=1e-4)
    assert len(found) == 10 * 2 * 2 and not any(error for *_, error in found.values())


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(tables: Tables, state: PartialState, tmp_path: Path) -> None:
    spec = spec_of(tables)
    run(bench_of(spec, limit=4), tmp_path, state)
    assert len(numbers(tmp_path, spec)) == 4 * 4
    before = lines(tmp_path)
    run(bench_of(spec, limit=4), tmp_path, state)
    assert lines(tmp_path) == before
    run(bench_of(spec), tmp_path, state)
    assert len(numbers(tmp_path, spec)) == 10 * 4


@pytest.mark.slow
def test_another_spec_is_refused_in_the_same_folder(tables: Tables, state: PartialState, tmp_path: Path) -> None:
    run(bench_of(spec_of(tables), limit=1), tmp_path, state)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(InputError, match="--out"):
        run(bench_of(spec_of(tables | {"seed": 1}), limit=1), tmp_path, state)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    (tmp_path / "spec.toml").unlink()
    with pytest.raises(InputError, match="of only this spec"):
        read_rows(tmp_path, spec_of(tables | {"seed": 1}).hash)


@pytest.mark.slow
def test_a_failed_sample_does_not_stop_the_others(
    tables: Tables, state: PartialState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tables)
    bench = bench_of(spec)
    whole = bench.data.__class__.__getitem__

    def torn(data: Any, index: int) -> Sample:
        if index == 2:
            raise OSError("the picture is cut short")
        return whole(data, index)

    monkeypatch.setattr(bench.data.__class__, "__getitem__", torn)
    attribute, disliked = cv.GenAtt.attribute, whole(bench.data, 7).label

    def choosy(self: Any, inputs: Any, target: Any, *args: Any) -> Any:
        if disliked in np.atleast_1d(target):
            raise RuntimeError("does not like this digit")
        return attribute(self, inputs, target, *args)

    monkeypatch.setattr(cv.GenAtt, "attribute", choosy)
    run(bench, tmp_path, state)
    found = numbers(tmp_path, spec)
    failed = {key[-1]: error for key, (_, _, error) in found.items() if error and key[1] == "GenAtt"}
    refused = {bench.data.name(i) for i in range(10) if i != 2 and whole(bench.data, i).label == disliked}
    assert failed[bench.data.name(2)] == "OSError: the picture is cut short"
    assert set(failed) == {bench.data.name(2), *refused}
    assert all("does not like" in failed[name] for name in refused)
    assert len(found) == 10 * 4

    rows = read_rows(tmp_path, spec.hash)
    shelf = gallery(bench, rows, state.device)[0]
    assert shelf.method == "GenAtt" and not failed.keys() & {picture.sample for picture in shelf.best + shelf.worst}

    monkeypatch.undo()
    run(bench, tmp_path, state)
    assert numbers(tmp_path, spec) == found, "failures are not tried again unasked"


@pytest.mark.slow
def test_retry_tries_failures_again(
    tables: Tables, state: PartialState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tables | {"method": [{"name": "GenAtt"}]})
    monkeypatch.setattr(cv.GenAtt, "attribute", lambda *_, **__: 1 / 0)
    run(bench_of(spec, limit=3), tmp_path, state)
    assert all("ZeroDivisionError" in error for *_, error in numbers(tmp_path, spec).values())
    monkeypatch.undo()
    run(bench_of(spec, limit=3), tmp_path, state, retry=True)
    assert not any(error for *_, error in numbers(tmp_path, spec).values())


@pytest.mark.slow
def test_mixed_precision_computes_in_half_with_whole_weights(
    tables: Tables, state: PartialState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[torch.dtype, torch.dtype]] = set()
    attribute = cv.GenAtt.attribute

    def watched(self: Any, inputs: Any, target: Any, *args: Any) -> Any:
        weight = next(self.forward_func.parameters())
        seen.add((weight.dtype, torch.matmul(weight.new_ones(1, 1), weight.new_ones(1, 1)).dtype))
        return attribute(self, inputs, target, *args)

    monkeypatch.setattr(cv.GenAtt, "attribute", watched)
    whole, mixed = spec_of(tables), spec_of(tables | {"precision": "bfloat16-mixed"})
    run(bench_of(mixed), tmp_path / "mixed", state)
    assert seen == {(torch.float32, torch.bfloat16)}
    run(bench_of(whole), tmp_path / "whole", state)
    found = [numbers(tmp_path / name, spec) for name, spec in (("mixed", mixed), ("whole", whole))]
    samples = [f"scene-0000{i}/digit-0" for i in range(5)]
    half, full = ([rows["digits", "GenAtt", "Fidelity", sample][0] for sample in samples] for rows in found)
    np.testing.assert_allclose(half, full, rtol=0.02)  # bfloat16 has 8 bits
    assert half != full


@pytest.mark.slow
def test_methods_that_sample_give_the_same_whatever_stands_beside_them(
    tables: Tables, state: PartialState, tmp_path: Path
) -> None:
    one, both = spec_of(tables | {"method": tables["method"][1:]}), spec_of(tables | {"metric": tables["metric"][::-1]})
    run(bench_of(one), tmp_path / "one", state)
    torch.manual_seed(5)
    run(bench_of(both), tmp_path / "both", state)
    found = numbers(tmp_path / "both", both)
    for key, value in numbers(tmp_path / "one", one).items():
        assert found[key] == value


def test_a_line_cut_short_is_passed_over_and_a_torn_file_refused(tmp_path: Path) -> None:
    row = Row("hash", 0, "", "m", "a", "f", "s", 1.5, {"mif": [1.0, 2.0]})
    writer = RowWriter(tmp_path)
    writer.write([row])
    with writer.path.open("a") as file:
        file.write(json.dumps({"spec": "hash"})[:9])
    again = RowWriter(tmp_path, 1)
    again.write([row, row])
    assert read_rows(tmp_path, "hash") == {row.key: row}
    writer.path.write_text("nonsense\n" + writer.path.read_text())
    with pytest.raises(InputError, match="line 1"):
        read_rows(tmp_path, "hash")


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"[1]\n", b'{"spec": 3}\n', b"3\n", None,
     b'{"spec":"hash","seed":0,"versions":"","model":"m","method":"a","metric":"f","sample":"s","score":"high"}\n',
     b'{"spec":"hash","seed":0,"versions":"","model":["m"],"method":"a","metric":"f","sample":"s"}\n'],
)  # fmt: skip
def test_files_that_are_no_results_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / FOLDER / "1.jsonl"
    path.parent.mkdir()
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=r"1\.jsonl") as error:
        read_rows(tmp_path, "hash")
    assert "removing that one" in error.value.hint
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / FOLDER).touch()
    with pytest.raises(InputError, match="which is a file"):
        read_rows(tmp_path / "other", "hash")


def launched(spec: Path, out: Path, processes: int = 1) -> list[str]:
    command = ["-m", "quantus_metrics.benchmark", str(spec), "--out", str(out), "--device", "cpu"]
    if processes == 1:
        return [sys.executable, *command]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]
    return [sys.executable, *launcher, *command]


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tables: Tables, tmp_path: Path, state: PartialState) -> None:
    """One of them this process, and one that Accelerate starts."""
    spec = spec_of(tables)
    path = tmp_path / "spec.toml"
    path.write_text(write_spec(spec))
    command.main(Namespace(spec=path, out=tmp_path / "1", limit=None, device="cpu", dry_run=False, retry=False))
    subprocess.run(launched(path, tmp_path / "2", processes=2), check=True, capture_output=True)
    assert numbers(tmp_path / "1", spec) == numbers(tmp_path / "2", spec)
    under = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", *launched(path, tmp_path / "accelerate")[1:]]
    subprocess.run(under, check=True, capture_output=True)
    assert numbers(tmp_path / "1", spec) == numbers(tmp_path / "accelerate", spec)
    assert len(list((tmp_path / "2" / FOLDER).glob("*"))) == 2
    one, two = ((tmp_path / name / "table.md").read_text() for name in "12")
    timeless = [[line.rsplit("|", 4)[0] for line in text.splitlines()] for text in (one, two)]
    assert timeless[0] == timeless[1]


@pytest.mark.full
def test_twenty_kills_lose_and_double_nothing(tables: Tables, tmp_path: Path) -> None:
    spec = spec_of(tables | {"batch_size": 1, "data": {"use": "digits", "options": {"scenes": 60}}})
    path = tmp_path / "spec.toml"
    path.write_text(write_spec(spec))
    lot, written = random.Random(0), []
    for _ in range(20):
        process = subprocess.Popen(
            launched(path, tmp_path / "out"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        before = lines(tmp_path / "out")
        deadline = time.time() + 120
        while process.poll() is None and lines(tmp_path / "out") <= before and time.time() < deadline:
            time.sleep(0.01)
        time.sleep(lot.random() * 0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        written.append(lines(tmp_path / "out"))
    assert sorted(written) == written and written[0] > 0
    subprocess.run(launched(path, tmp_path / "out"), check=True, capture_output=True)
    found = numbers(tmp_path / "out", spec)
    assert len(found) == 120 * 4 and not any(error for *_, error in found.values())
    subprocess.run(launched(path, tmp_path / "whole"), check=True, capture_output=True)
    assert found == numbers(tmp_path / "whole", spec)
