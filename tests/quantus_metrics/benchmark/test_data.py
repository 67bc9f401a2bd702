"""Readers, on small files in the real formats."""

import json
import pickle
from hashlib import md5
from pathlib import Path

import datasets
import h5py
import numpy as np
import pytest
import torchvision
from PIL import Image
from timm.data import ImageNetInfo

from captum_vit.errors import InputError, OptionError
from quantus_metrics.benchmark.data import (
    Cifar,
    DigitScenes,
    Drawn,
    Hub,
    ImageFolder,
    ImageNetS,
    ImageNetSegmentation,
    QuestionScenes,
)

SYNSETS = ImageNetInfo("imagenet-1k").label_names()


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_digit_scenes_know_both_digits() -> None:
    data = DigitScenes(scenes=3, n_digits=2, seed=1)
    first, second = data[2], data[3]
    assert len(data) == 6 and first.name == data.name(2) == "scene-00001/digit-0"
    assert (first.label, first.wrong) == (second.wrong, second.label)
    assert first.picture.size == first.mask.size == (64, 64)  # type: ignore[union-attr]
    assert not (np.asarray(first.mask) & np.asarray(second.mask)).any() and np.asarray(first.mask).max() == 255
    assert DigitScenes(scenes=2, n_digits=1)[0].wrong is not None


def test_question_scenes_hold_a_low_digit_and_a_high_one() -> None:
    """And are others than those of any two digits, by their digest too."""
    data = QuestionScenes(scenes=10, seed=1)
    assert len(data) == 20
    for sample in map(data.__getitem__, range(20)):
        assert sample.wrong is not None and (sample.label < 5) != (sample.wrong < 5) and sample.mask is not None
    assert data.digest() == QuestionScenes(scenes=10, seed=1).digest() != DigitScenes(scenes=10, seed=1).digest()


@pytest.fixture
def validation(tmp_path: Path) -> Path:
    """Four pictures of three classes, named as ImageNet's."""
    for number, synset in enumerate(["n01", "n02", "n02", "n03"], 1):
        (tmp_path / "val" / synset).mkdir(parents=True, exist_ok=True)
        picture(number).save(tmp_path / "val" / synset / f"ILSVRC2012_val_{number:08d}.JPEG")
    (tmp_path / "real.json").write_text(json.dumps([[0], [1, 2], [], [2, 0, 1]]))
    return tmp_path


def test_folders_number_classes_by_name(validation: Path) -> None:
    data = ImageFolder(str(validation / "val"))
    assert [data[i].label for i in range(len(data))] == [0, 1, 1, 2]
    assert all(data[i].wrong != data[i].label for i in range(len(data)))
    assert data.name(0) == "n01/ILSVRC2012_val_00000001.JPEG" and data[0].picture.size == (12, 10)
    few = ImageFolder(str(validation / "val"), n=2, seed=3)
    assert len(few) == 2 and [few.name(i) for i in range(2)] == [
        ImageFolder(str(validation / "val"), n=2, seed=3).name(i) for i in range(2)
    ]


def test_folders_below_a_class_are_of_it(validation: Path) -> None:
    (validation / "val" / "n02" / "more").mkdir()
    picture(5).save(validation / "val" / "n02" / "more" / "a.png")
    data = ImageFolder(str(validation / "val"))
    assert [data[i].label for i in range(len(data))] == [0, 1, 1, 1, 2] and data.classes == ["n01", "n02", "n03"]


def test_real_labels_make_a_pair_of_classes_of_each_picture(validation: Path) -> None:
    shown, found = {"00000002.JPEG": {1, 2}, "00000004.JPEG": {0, 1, 2}}, set()
    for seed in range(20):
        data = ImageFolder(str(validation / "val"), real=str(validation / "real.json"), multi=True, seed=seed)
        pairs = {data.name(i).rpartition("_")[2]: (data[i].label, data[i].wrong) for i in range(len(data))}
        found |= set(pairs.items())
        assert [name.partition("#")[0] for name in pairs] == [*shown]
        for name, (label, wrong) in pairs.items():
            assert name.endswith(f"#{label}") and wrong != label and {label, wrong} <= shown[name.partition("#")[0]]
    assert len(found) == 2 + 6  # every order of every two of its classes is drawn


def test_a_limit_draws_samples_and_a_higher_one_adds_to_them() -> None:
    whole = DigitScenes(10)
    few, more, others = (Drawn(whole, n, seed) for n, seed in ((6, 0), (9, 0), (6, 1)))
    names = [few.name(i) for i in range(len(few))]
    assert len(set(names)) == 6 and names != [whole.name(i) for i in range(6)]
    assert names == [more.name(i) for i in range(6)] and names != [others.name(i) for i in range(6)]
    assert [few[i].name for i in range(6)] == names and few.digest() == more.digest() == whole.digest()


def test_folders_that_are_none(validation: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        ImageFolder(str(validation / "nothing"))
    with pytest.raises(OptionError, match="real"):
        ImageFolder(str(validation / "val"), multi=True)
    (validation / "real.json").write_text("{}")
    with pytest.raises(InputError, match="ReaL"):
        ImageFolder(str(validation / "val"), real=str(validation / "real.json"))
    (validation / "val" / "n03" / "ILSVRC2012_val_00000004.JPEG").write_bytes(b"no picture")
    with pytest.raises(InputError, match="PIL"):
        ImageFolder(str(validation / "val"))[3]


def test_imagenet_segmentation(tmp_path: Path) -> None:
    """References to references, MATLAB's order of axes, names in UTF-16."""
    path, names = tmp_path / "gtsegs_ijcv.mat", [f"{SYNSETS[7]}_12", f"{SYNSETS[3]}_5"]
    masks = [np.zeros((10, 12), np.uint8), np.ones((10, 12), np.uint8)]
    masks[0][2:5, 1:9] = 1
    with h5py.File(path, "w") as file:
        columns: dict[str, list[h5py.Reference]] = {"img": [], "gt": [], "id": []}
        for i, name in enumerate(names):
            file[f"refs/img{i}"] = np.asarray(picture(i)).transpose(2, 1, 0)
            file[f"refs/mask{i}"] = masks[i].T
            file[f"refs/gt{i}"] = np.array([[file[f"refs/mask{i}"].ref]], dtype=h5py.ref_dtype)
            file[f"refs/id{i}"] = np.array([[ord(letter)] for letter in name], dtype=np.uint16)
            for key in columns:
                columns[key].append(file[f"refs/{key}{i}"].ref)
        for key, found in columns.items():
            file[f"value/{key}"] = np.array(found, dtype=h5py.ref_dtype)[:, None]
    data = ImageNetSegmentation(str(path))
    assert len(data) == 2 and [data[i].label for i in range(2)] == [7, 3]
    assert np.array_equal(np.asarray(data[0].picture), np.asarray(picture(0)))
    assert np.array_equal(np.asarray(data[0].mask), 255 * masks[0])
    few = ImageNetSegmentation(str(path), n=1, seed=3)
    assert len(few) == 1 and few.name(0) in {data.name(0), data.name(1)}
    assert few[0].label == data[few.places[0]].label and few.digest() != data.digest()
    (tmp_path / "other.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(InputError, match="gtsegs"):
        ImageNetSegmentation(str(tmp_path / "other.mat"))


def test_imagenet_s_explains_the_largest_class(tmp_path: Path) -> None:
    synsets = sorted([SYNSETS[300], SYNSETS[5]])
    for number, synset in enumerate(synsets):
        for folder in ("images", "masks"):
            (tmp_path / folder / synset).mkdir(parents=True)
        picture(number).save(tmp_path / "images" / synset / "a.JPEG")
        mask = np.zeros((10, 12, 3), np.uint8)
        mask[:4] = [1000 % 256, 1000 // 256, 0]  # ignored, and larger than any class
        mask[4:7] = [2, 0, 0]
        mask[7, :5] = [1, 0, 0]
        Image.fromarray(mask).save(tmp_path / "masks" / synset / "a.png")
    data = ImageNetS(str(tmp_path / "images"), str(tmp_path / "masks"))
    assert data[0].label == data[1].label == 300 and data.name(1) == f"{synsets[1]}/a"
    inside = np.asarray(data[0].mask)
    assert inside[4:7].min() == 255 and inside.sum() == 255 * 36
    few = ImageNetS(str(tmp_path / "images"), str(tmp_path / "masks"), n=1, seed=3)
    assert len(few) == 1 and few[0].label == 300 and few.name(0) in {data.name(0), data.name(1)}
    (tmp_path / "images" / synsets[1] / "a.JPEG").unlink()
    with pytest.raises(InputError, match="no file"):
        data[1]
    with pytest.raises(InputError, match=r"SYNSET/NAME\.png"):
        ImageNetS(str(tmp_path / "images"), str(tmp_path / "images"))


def test_cifar_as_its_authors_publish_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    content = pickle.dumps({"data": values, "labels": [3, 1, 4, 1, 5, 9]})
    (folder / "test_batch").write_bytes(content)
    meta = pickle.dumps({"label_names": [str(i) for i in range(10)]})
    (folder / "batches.meta").write_bytes(meta)
    # torchvision knows the published files by their sums; these are ours
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "test_list", [["test_batch", md5(content).hexdigest()]])
    monkeypatch.setattr(kind, "train_list", [])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(meta).hexdigest()})
    data = Cifar(str(tmp_path), n=4, seed=1)
    assert len(data) == 4 and data[0].label != data[0].wrong and 0 <= data[0].wrong < 10  # type: ignore[operator]
    place = int(data.name(2).removeprefix("test-"))
    assert np.array_equal(np.asarray(data[2].picture), values[place].reshape(3, 32, 32).transpose(1, 2, 0))
    with pytest.raises(InputError, match="CIFAR-100"):
        Cifar(str(tmp_path), classes=100)


def test_hugging_face_data_from_disk(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"]), "seg": datasets.Image()}
    )
    masks = [Image.fromarray(np.eye(4, dtype=np.uint8)) for _ in range(3)]
    rows = {"image": [picture(i) for i in range(3)], "label": [0, 2, 1], "seg": masks}
    datasets.DatasetDict({"validation": datasets.Dataset.from_dict(rows, features)}).save_to_disk(tmp_path / "set")
    data = Hub(str(tmp_path / "set"), mask="seg")
    assert [data[i].label for i in range(3)] == [0, 2, 1] and data[1].wrong != 2
    assert np.array_equal(np.asarray(data[0].mask), 255 * np.eye(4, dtype=np.uint8))
    with pytest.raises(InputError, match="one of image, label, seg"):
        Hub(str(tmp_path / "set"), label="class")
    with pytest.raises(InputError, match="split 'test'"):
        Hub(str(tmp_path / "set"), split="test")
