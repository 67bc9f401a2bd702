"""A head trained from folders of pictures: it learns, goes on as if not stopped, and refuses before any work."""

import argparse
import pickle
import shutil
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import tomli_w
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from timm.models import VisionTransformer, register_model
from torch import Tensor, nn

from captum_vit.demo import demo_vit
from captum_vit.demo.digits.model import weights_of
from captum_vit.errors import CaptumVitError
from captum_vit.inputs.loading import load_weights
from quantus_metrics.benchmark.factories import make_data, make_model
from quantus_metrics.benchmark.group import read_group
from quantus_metrics.benchmark.toml_spec import DataSpec, ModelSpec
from quantus_metrics.training import run
from quantus_metrics.training.command import train_head
from quantus_metrics.training.head_spec import read_head_spec

LOAD = "timm:backbone_of_digits"
TINY = {"load": "timm:tiny_backbone", "pretrained": False, "batch_size": 8, "epochs": 2, "held_out": 0.25}
DIGITS = {"load": LOAD, "checkpoint": str(weights_of("digits")), "rate": 0.01, "epochs": 15}
PARSER = argparse.ArgumentParser()
train_head(PARSER.add_subparsers())


@register_model
def backbone_of_digits(pretrained: bool = False, **_: Any) -> nn.Module:
    """The demo classifier as a model of timm: 64 x 64 pixels."""
    return demo_vit(pretrained)


@register_model
def tiny_backbone(pretrained: bool = False, **_: Any) -> nn.Module:
    """One block, 16 x 16 pixels."""
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    model.pretrained_cfg = {"input_size": (3, 16, 16), "fixed_input_size": True, "classifier": "head"}
    return model


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of three digits, eight of each, in folders; a file of the last folder is no picture."""
    root = tmp_path_factory.mktemp("digits")
    bunch = load_digits()
    for digit in (2, 5, 7):
        (root / str(digit)).mkdir()
        for i, scan in enumerate(bunch.images[bunch.target == digit][:8]):
            Image.fromarray(np.pad(15 * scan, 6).astype(np.uint8)).save(root / str(digit) / f"{i}.png")
    (root / "7" / "torn.png").write_bytes((root / "7" / "0.png").read_bytes()[:60])
    return root


def train(folder: Path, *options: str, **spec: Any) -> dict[str, Tensor]:
    """Run the command on a spec; what it wrote."""
    folder.mkdir(exist_ok=True)
    path, out = folder / "spec.toml", folder / "head.safetensors"
    path.write_text(tomli_w.dumps({"title": "Small", **TINY, **spec}))
    args = PARSER.parse_args(["train-head", str(path), f"--out={out}", *options])
    args.run(args)
    return load_weights(out)


def of(root: Path, **options: Any) -> dict[str, Any]:
    return {"use": "folder", "options": {"root": str(root), **options}}


def test_a_head_of_digits_is_the_model_of_a_benchmark(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = train(tmp_path, data=of(digits), **DIGITS)
    assert "left out: 7/torn.png" in capsys.readouterr().err
    begun = load_weights(weights_of("digits"))
    assert all(torch.equal(weights[name], begun[name].float()) for name in begun if not name.startswith("head."))
    card = (tmp_path / "head.md").read_text()
    assert "left out: 7/torn.png" in card and "the backbone is frozen" in card
    assert float(card.partition("| held out | 6 | ")[2].partition("%")[0]) > 80
    model = make_model(ModelSpec("Small", LOAD, str(tmp_path / "head.safetensors")), torch.device("cpu"), "float32")
    group, failed = read_group(make_data(DataSpec(**of(digits))), range(25), model)
    assert group is not None and list(failed) == ["7/torn.png"]
    with torch.no_grad():
        assert (model(group.inputs).argmax(1) == torch.as_tensor(group.labels)).double().mean() > 0.95
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.md", "head.safetensors", "spec.toml"]


@pytest.mark.parametrize(
    "spec",
    [
        {"augment": "crop"},
        {"trained": "all", "augment": "randaugment", "optimizer": "sgd", "schedule": "cosine", "warmup": 0.5},
    ],
    ids=["head", "all"],
)
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    spec: dict[str, Any], digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bitwise, wherever it stops: at any batch of features, or any step."""
    monkeypatch.setattr(run, "SHARD", 16)
    whole = train(tmp_path / "whole", data=of(digits), **spec)
    seen: list[int] = []

    def stopping(call: Any, size: Any) -> Any:
        def stopped(*args: Any) -> Any:
            found = call(*args)
            seen.append(size(*args))
            if len(seen) in (1, 3, 4):
                raise KeyboardInterrupt
            return found

        return stopped

    monkeypatch.setattr(run, "pooled", stopping(run.pooled, lambda model, x: len(x)))
    monkeypatch.setattr(run, "take_step", stopping(run.take_step, lambda *_: 0))
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "part", data=of(digits), **spec)
    part = train(tmp_path / "part", data=of(digits), **spec)
    assert all(torch.equal(part[name], whole[name]) for name in whole)
    assert any(
        not torch.equal(whole[name], tensor)
        for name, tensor in train(tmp_path / "seed", data=of(digits), seed=1, **spec).items()
    )


def test_features_are_computed_once(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each picture, or with augmentation of each view of it."""
    seen: list[int] = []
    call = run.pooled
    monkeypatch.setattr(run, "pooled", lambda model, x: seen.append(len(x)) or call(model, x))
    train(tmp_path / "plain", data=of(digits), epochs=3)
    assert sum(seen) == 18
    train(tmp_path / "crops", data=of(digits), epochs=3, augment="crop")
    assert sum(seen) == 18 + 3 * 18


def test_cifar_as_its_authors_publish_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten classes told apart by their colour, fine-tuned; both splits are read."""
    folder, kind = tmp_path / "cifar-10-batches-py", torchvision.datasets.CIFAR10
    folder.mkdir()
    draw = np.random.default_rng(0)
    colours = draw.integers(0, 256, (10, 3, 1))
    lists = {}
    for name, n in (("data_batch_1", 40), ("test_batch", 20)):
        labels = (np.arange(n) % 10).tolist()
        values = (colours[labels] + draw.integers(-9, 9, (n, 3, 1024))).clip(0, 255).astype(np.uint8).reshape(n, -1)
        (folder / name).write_bytes(pickle.dumps({"data": values, "labels": labels}))
        lists[name] = [[name, md5((folder / name).read_bytes()).hexdigest()]]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    monkeypatch.setattr(kind, "train_list", lists["data_batch_1"])
    monkeypatch.setattr(kind, "test_list", lists["test_batch"])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5((folder / "batches.meta").read_bytes()).hexdigest()})
    cifar = [{"use": "cifar", "options": {"root": str(tmp_path), "split": split}} for split in ("train", "test")]
    train(tmp_path, data=cifar[0], held_out=cifar[1], trained="all", optimizer="adamw", rate=0.01, epochs=8)
    card = (tmp_path / "head.md").read_text()
    assert "all of it was trained" in card and "| training | 40 |" in card
    assert float(card.partition("| held out | 20 | ")[2].partition("%")[0]) > 50


def spoilt(root: Path, case: str) -> dict[str, Any]:
    """A spec that is to be refused."""
    bad = root.parent / f"{case.replace(' ', '-')}"
    if case == "one class":
        shutil.copytree(root / "2", bad / "2")
        return {"data": of(bad)}
    if case == "a class without a picture":
        shutil.copytree(root, bad)
        for path in (bad / "5").iterdir():
            path.write_bytes(b"torn")
        return {"data": of(bad)}
    if case == "other classes held out":
        shutil.copytree(root, bad)
        (bad / "7").rename(bad / "8")
        return {"data": of(root), "held_out": of(bad)}
    return {
        "no folder": {"data": of(root / "none")},
        "no such model": {"data": of(root), "load": "timm:zzz"},
        "two heads": {"data": of(root), "load": "timm:deit_tiny_distilled_patch16_224"},
        "another library": {"data": of(root), "load": "hf:somewhere"},
        "held out of what is trained": {"data": of(root), "held_out": of(root)},
        "no epochs": {"data": of(root), "epochs": 0},
        "a word for the rate": {"data": of(root), "rate": "fast"},
        "an unknown key": {"data": of(root), "mixup": 0.8},
    }[case]


CASES = {
    "no folder": "no folder",
    "one class": "1 in",
    "a class without a picture": "2 of 3 classes",
    "other classes held out": "['2', '5', '8'] held out, ['2', '5', '7']",
    "held out of what is trained": "the training data itself",
    "another library": "timm:NAME",
    "no such model": "timm.list_models()",
    "two heads": "is a tuple",
    "no epochs": "greater than 0",
    "a word for the rate": "rate",
    "an unknown key": "one of the keys title, load",
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_trained_is_refused_before_the_work(
    case: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.Training, "run", lambda self: pytest.fail("it went to work"))
    with pytest.raises(CaptumVitError) as error:
        train(tmp_path, **spoilt(digits, case))
    assert CASES[case] in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["spec.toml"]


def test_what_is_there_is_neither_replaced_nor_mixed(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run, "save_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train(tmp_path, data=of(digits))
    with pytest.raises(CaptumVitError, match="to go on; --overwrite"):
        train(tmp_path, data=of(digits), rate=0.1)
    train(tmp_path, "--overwrite", data=of(digits), rate=0.1)
    with pytest.raises(CaptumVitError, match="--overwrite"):
        train(tmp_path, data=of(digits), rate=0.1)
    (tmp_path / "head.run").mkdir()
    with pytest.raises(CaptumVitError, match="something else"):
        train(tmp_path, "--overwrite", data=of(digits))
    (tmp_path / "head.run").rmdir()
    with pytest.raises(CaptumVitError, match="finite loss"):
        train(tmp_path, "--overwrite", data=of(digits), rate=1e38, optimizer="sgd")


def test_the_examples_train_what_the_tables_name() -> None:
    root = Path(__file__).parents[3] / "examples"
    files = sorted((root / "heads").glob("*.toml"))
    tables = "".join(path.read_text("utf-8") for path in (root / "tables").glob("*.toml"))
    for file in files:
        spec = read_head_spec(file)
        assert timm.get_pretrained_cfg(spec.load.removeprefix("timm:"), allow_unregistered=False) and spec.source
        assert f'load = "{spec.load}", checkpoint = "data/checkpoints/{file.stem}.safetensors"' in tables
    assert len(files) == 3
