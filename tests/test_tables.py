"""The papers' tables in examples/tables: every file reads, and everything it names is there."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from accelerate import PartialState
from PIL import Image
from torchvision.transforms import ToTensor

from captum_vit.demo import demo_vit, digit_scenes
from captum_vit.errors import InputError
from captum_vit.inputs.images import display_image, image_tensor
from quantus_metrics.benchmark.factories import DEMOS, make_data, make_method, make_metric
from quantus_metrics.benchmark.group import read_group
from quantus_metrics.benchmark.rows import read_rows
from quantus_metrics.benchmark.runner import bench_of, run
from quantus_metrics.benchmark.toml_spec import MethodSpec, read_spec, spec_of, write_spec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLES = Path(__file__).parents[1] / "examples" / "tables"
FILES = sorted(TABLES.glob("**/*.toml"))
DEMO = [file for file in FILES if file.parent.name == "demo"]
PAPERS = [file for file in FILES if file.parent == TABLES]

PRINTED = {  # numbers in the tables of the papers; its figures print none
    "cdam_table1": 9, "cdam_table2": 36, "cdam_table3": 18, "cdam_table_s1": 36,
    "prediction_maps_table1": 56, "prediction_maps_table2": 48, "prediction_maps_table3": 28,
    "prediction_maps_table4_perturbation": 16, "prediction_maps_table4_segmentation": 12,
    "prediction_maps_table5": 6, "prediction_maps_table6_perturbation": 12, "prediction_maps_table6_segmentation": 9,
    "vtranm_table1_cifar10": 36, "vtranm_table1_cifar100": 36,
    "vtranm_table2_perturbation": 36, "vtranm_table2_segmentation": 27, "vtranm_table3": 54,
    "vtranm_table4_perturbation": 8, "vtranm_table4_segmentation": 12,
}  # fmt: skip


def every(files: list[Path]) -> Any:
    names = [file.relative_to(TABLES).with_suffix("").as_posix() for file in files]
    return pytest.mark.parametrize("file", files, ids=names)


def test_every_table_is_here() -> None:
    """And each has a demo, in which what a paper did on two data sets or models is one table."""
    figures = {f"skipplus_figure{n}" for n in (3, 4, 8, 9, 10, 11, 12)}
    figures |= {f"skipplus_figure{n}_{model}" for n in (2, 7) for model in ("vit_base", "eva_large")}
    figures |= {f"{name}_segmentation" for name in figures}
    figures |= {f"prediction_maps_figure{n}_{test}" for n in (6, 7) for test in ("perturbation", "segmentation")}
    assert {file.stem for file in PAPERS} == PRINTED.keys() | figures
    whole = {re.match(r".+?_(table|figure)_?s?\d+", file.stem)[0] for file in PAPERS}  # type: ignore[index]
    assert {file.stem for file in DEMO} == {"all", "answers", "digits_noise"} | {f"digits_{name}" for name in whole}


@every(FILES)
def test_a_table_is_read_as_it_was_written(file: Path) -> None:
    spec = read_spec(file)
    assert spec_of(tomllib.loads(write_spec(spec))) == spec
    assert spec.source and spec.title


@every(FILES)
def test_a_table_names_methods_that_there_are(file: Path) -> None:
    for method in read_spec(file).method:
        make_method(method)


@every(FILES)
def test_a_table_names_metrics_that_there_are(file: Path) -> None:
    for metric in read_spec(file).metric:
        make_metric(metric)


@every(FILES)
def test_a_table_names_models_that_there_are(file: Path) -> None:
    for model in read_spec(file).model:
        library, _, name = model.load.partition(":")
        assert name in DEMOS if library == "demo" else timm.get_pretrained_cfg(name, allow_unregistered=False)


@every(PAPERS)
def test_a_table_of_a_paper_says_what_files_it_needs(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In relative folders that the head of the file tells of. Its options are right: files are all that is missing."""
    spec, head = read_spec(file), file.read_text("utf-8").split("\n\n")[0]
    data = [value for value in spec.data.options.values() if isinstance(value, str)]
    paths = data + [model.checkpoint for model in spec.model if model.checkpoint]
    assert all(path.startswith("data/") and f"# {path}:" in head for path in paths), (paths, head)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="|".join(map(re.escape, data))):
        make_data(spec.data)


@every(PAPERS)
def test_a_table_of_a_paper_has_every_printed_number_once(file: Path) -> None:
    numbers = [(each.model, each.method, each.metric) for each in read_spec(file).published]
    assert len(numbers) == len(set(numbers)) == PRINTED.get(file.stem, 0)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of three classes, twice as wide as high, under ImageNet's names, with ReaL labels."""
    root, draw = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    for number in range(1, 7):
        folder = root / "data" / "imagenet" / "val" / f"n{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (40, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    (root / "data" / "imagenet" / "real.json").write_text(json.dumps([[number % 3, 5] for number in range(1, 7)]))
    return root


CHEAP = {  # of each metric, so that a table takes no time
    "BoxSensitivity": {"n_boxes": 3, "sizes": [1, 3]},
    "Deletion": {"fractions": [0.2, 0.5]},
    "Insertion": {"fractions": [0.2, 0.5]},
}
MEASURED = {
    "cdam_table2": ["CDAM", "SmoothGrad"],
    "prediction_maps_table1": ["LRP", "PredicAtt_L"],
    "vtranm_table3": ["LRP", "Ours"],
    "skipplus_figure12": ["XGradCAM", "SkipPLUS(XGradCAM)"],
}
SQUASHED = {"prediction_maps_table1", "vtranm_table3"}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_a_table_of_each_paper_runs_on_a_folder_of_pictures(
    name: str, imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of its methods, with few steps; and the pictures are cropped, or not, as its paper has it."""
    monkeypatch.chdir(imagenet)
    tables = tomllib.loads((TABLES / f"{name}.toml").read_text("utf-8"))
    tables["model"] = [{"name": "tiny", "load": "timm:test_vit", "pretrained": False}]
    tables["method"] = [method for method in tables["method"] if method["name"] in MEASURED[name]]
    tables.pop("published", None)
    for metric in tables["metric"]:
        kind = metric.get("use", metric["name"])
        metric.setdefault("options", {}).update(CHEAP.get(kind, {"fractions": [0.0, 0.5, 1.0]}))
    bench = bench_of(spec_of(tables), limit=2)
    run(bench, tmp_path, PartialState(cpu=True))
    rows = read_rows(tmp_path, bench.spec.hash).values()
    assert not [row.error for row in rows if row.error]
    assert len([row for row in rows if row.score is not None]) == 2 * 2 * len(bench.metrics)
    model, sample = timm.create_model("test_vit"), bench.data[0]
    group, _ = read_group(bench.data, [0], model, bench.spec.resize)
    whole = image_tensor(model, sample.picture.resize((160, 160), Image.Resampling.BILINEAR), ToTensor())
    seen = display_image(model, group.inputs)  # type: ignore[union-attr]
    assert ((seen - whole).abs().max() < 1e-5) == (name in SQUASHED)


@every(DEMO)
def test_a_demo_table_has_data_and_no_numbers(file: Path) -> None:
    spec = read_spec(file)
    assert len(make_data(spec.data)) >= 20 and not spec.published


def method_specs() -> dict[str, MethodSpec]:
    """Each method with each set of options that a demo table asks for, once."""
    found = [method for file in DEMO for method in read_spec(file).method]
    return {f"{method.method} {method.options}": method for method in found}


@pytest.mark.slow
@pytest.mark.parametrize("spec", method_specs().values(), ids=method_specs())
def test_a_method_of_the_demo_tables_explains_a_scene(spec: MethodSpec) -> None:
    """Making one needs no model, so this tells more: that PLUS can sum it, that it has such a layer."""
    method, image = make_method(spec), digit_scenes(1, 1, "test", 0).pixels
    relevance = method.make(demo_vit()).attribute(image, target=3, **method.options)
    side = 64 if spec.options.get("explains") == "pixels" else 8
    assert relevance.shape == (1, 1, side, side) and torch.isfinite(relevance).all() and relevance.std() > 0


def test_demo_metrics_are_those_of_the_papers() -> None:
    """Every metric of a paper's table is in a demo table, and the other way round."""

    def used(files: list[Path]) -> set[str]:
        return {metric.metric for file in files for metric in read_spec(file).metric}

    assert used(PAPERS) == used(DEMO) - {"GridPointing"}
