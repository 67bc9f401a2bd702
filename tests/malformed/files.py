"""Bad benchmarks, data sets and files of weights, and bad lines for the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from shlex import split
from typing import Any

from captum_vit.inputs.loading import load_model, load_weights
from quantus_metrics.benchmark.data.digits import DigitScenes
from quantus_metrics.benchmark.data.folders import ImageFolder
from quantus_metrics.benchmark.data.libraries import Cifar, Hub
from quantus_metrics.benchmark.data.segmented import ImageNetS, ImageNetSegmentation
from quantus_metrics.benchmark.factories import make_data, make_method, make_metric
from quantus_metrics.benchmark.runner import bench_of
from quantus_metrics.benchmark.toml_spec import DataSpec, MethodSpec, MetricSpec, read_spec, spec_of
from tests.malformed.bad import Bad

SPEC: dict[str, Any] = {
    "title": "Small",
    "data": {"use": "digits", "options": {"scenes": 2}},
    "model": [{"name": "digits", "load": "demo:digits"}],
    "method": [{"name": "GenAtt"}],
    "metric": [{"name": "Compactness"}],
}
VALUES: dict[str, list[Any]] = {
    "title": [None, 3, ["a"]],
    "data": [None, "digits", {}, {"use": 3}, {"use": "digits", "scenes": 2}],
    "model": [
        None,
        [],
        [{}],
        [{"name": "a"}],
        "digits",
        [{"name": "a", "load": "b", "weights": "c"}],
        SPEC["model"] * 2,
    ],
    "method": [None, [], "GenAtt", [{}], [{"name": 3}], SPEC["method"] * 2],
    "metric": [None, [], "Fidelity", [{}], [{"name": "Fidelity", "options": 3}], SPEC["metric"] * 2],
    "batch_size": [0, -1, 1.5, "many", None, True, "16"],
    "precision": ["float8", None, 32],
    "seed": ["a", 0.5, None, True],
    "published": [{"model": "digits"}, [{"model": "other", "method": "GenAtt", "metric": "Compactness", "value": 1.0}]],
    "metrics": [[]],
}


def specs() -> Iterator[Bad]:
    for key, values in VALUES.items():
        for value in values:
            yield Bad(f"spec({key}={value!r:.60})", lambda k=key, v=value: spec_of({**SPEC, k: v}))
        if key in ("title", "data", "model", "method", "metric"):
            yield Bad(f"spec without {key}", lambda k=key: spec_of({n: v for n, v in SPEC.items() if n != k}))
    for tables in (None, [], "title", 3):
        yield Bad(f"spec({tables!r})", lambda t=tables: spec_of(t))
    for limit in (0, -1):
        yield Bad(f"bench_of(limit={limit})", lambda n=limit: bench_of(spec_of(SPEC), n))
    for path in ("no-such.toml", ".", "", "notes.txt", "bytes.toml", "deep.toml", "date.toml"):
        yield Bad(f"read_spec({path!r})", lambda p=path: read_spec(p))


def parts() -> Iterator[Bad]:
    for name, given in (("GenAt", {}), ("PLUS(GenAt)", {}), ("PLUS(GenAtt)", {"layer": 3}), ("GenAtt", {"layerz": 3})):
        yield Bad(f"method {name} {given}", lambda n=name, g=given: make_method(MethodSpec(n, options=g)))
    for name, given in (
        ("Fidelty", {}), ("quantus.Nothing", {}), ("Fidelity", {"patch": 3}), ("Fidelity", {"patch_size": 0}),
        ("Fidelity", {"remover": {"use": "Smudge"}}), ("Fidelity", {"remover": {"use": "Blur", "radius": 3}}),
        ("ClassDiscrimination", {"metric": {"use": "Fidelty"}}),
    ):  # fmt: skip
        yield Bad(f"metric {name} {given}", lambda n=name, g=given: make_metric(MetricSpec(n, options=g)))
    for name, given in (
        ("digit", {}), ("digits", {"n": 3}), ("digits", {"scenes": 0}), ("digits", {"scenes": "a"}),
        ("digits", {"n_digits": 9}), ("folder", {"root": "no-such-folder"}), ("folder", {}), ("digits", {"seed": -1}),
        ("folder", {"root": ".", "n": 0}), ("folder", {"root": ".", "seed": -1}), ("folder", {"root": ".", "multi": 1}),
        ("cifar", {"root": ".", "seed": "a"}), ("imagenet-s", {}),
    ):  # fmt: skip
        yield Bad(f"data {name} {given}", lambda n=name, g=given: make_data(DataSpec(n, g)))


def data() -> Iterator[Bad]:
    readers: dict[str, Callable[[], object]] = {
        "no folder": lambda: ImageFolder("no-such-folder"),
        "a file": lambda: ImageFolder("notes.txt"),
        "a folder without classes": lambda: ImageFolder("."),
        "no labels for multi": lambda: ImageFolder(".", multi=True),
        "no file of ReaL labels": lambda: ImageFolder(".", real="no-such.json"),
        "no JSON": lambda: ImageFolder(".", real="notes.txt"),
        "JSON that is too deep": lambda: ImageFolder(".", real="deep.json"),
        "no masks": lambda: ImageNetS(".", "."),
        "no file of masks": lambda: ImageNetSegmentation("no-such.mat"),
        "no HDF5": lambda: ImageNetSegmentation("notes.txt"),
        "no CIFAR": lambda: Cifar("."),
        "CIFAR-11": lambda: Cifar(".", 11),
        "nothing on the disk": lambda: Hub("."),
        "five digits": lambda: DigitScenes(2, 5),
    }
    for name, read in readers.items():
        yield Bad(f"data: {name}", read)


def weights() -> Iterator[Bad]:
    for name in ("", "vit", "timm:", "hf:", "timm:vit_tinny", "keras:vit", "hf:no/such-model", "hf:.", None, 3):
        yield Bad(f"load_model({name!r})", lambda n=name: load_model(n, pretrained=False))
    yield Bad("load_model(hf and a checkpoint)", lambda: load_model("hf:.", checkpoint="a.safetensors"))
    for path in ("no-such.pth", ".", "notes.txt", "notes.safetensors", "code.pth", "list.pth", None):
        yield Bad(f"load_weights({path!r})", lambda p=path: load_weights(p))
    for path in ("other.safetensors", "no-such.safetensors"):
        yield Bad(f"load_model(checkpoint={path!r})", lambda p=path: load_model("timm:test_vit", checkpoint=p))


FILE_CALLS = [*specs(), *parts(), *data(), *weights()]

LINES = """
--no-such-flag
explan
explain
explain photo.png
explain photo.png VIT --targets 3
explain photo.png VIT --target
explain photo.png VIT --target "a flying pig"
explain photo.png VIT --target 9999
explain photo.png VIT --target -1.5
explain photo.png VIT --target ""
explain photo.png VIT --method
explain photo.png VIT --method LayerCAM
explain photo.png VIT --method ""
explain photo.png VIT --method PLUS
explain photo.png VIT --method PLUS(LayerCDAM
explain photo.png VIT --out
explain photo.png VIT --out map
explain photo.png VIT --out map.jpg
explain photo.png VIT --out map.html
explain photo.png VIT --out mine.png
explain photo.png VIT --out .
explain photo.png VIT --out no-such-folder/map.png
explain photo.png VIT --device gpu
explain photo.png VIT --device ""
explain photo.png VIT --device cuda:99
explain photo.png VIT --device meta
explain photo.png VIT --device cpu:x
explain no-such.png VIT
explain notes.txt VIT
explain cut.png VIT
explain . VIT
explain "" VIT
explain photo.png --model
explain photo.png --model ""
explain photo.png --model vit
explain photo.png --model keras:vit
explain photo.png --model timm:
explain photo.png --model timm:vit_tinny
explain photo.png --model hf:
explain photo.png --model hf:.
explain photo.png --model hf:no/such-model
explain photo.png --model hf:. --checkpoint weights.safetensors
explain photo.png --model timm:test_vit --checkpoint no-such.pth
explain photo.png --model timm:test_vit --checkpoint notes.txt
explain photo.png --model timm:test_vit --checkpoint notes.safetensors
explain photo.png --model timm:test_vit --checkpoint code.pth
explain photo.png --model timm:test_vit --checkpoint list.pth
explain photo.png --model timm:test_vit --checkpoint other.safetensors
explain photo.png --model timm:test_vit --checkpoint .
doctor
doctor VIT --device gpu
doctor VIT --target 3
doctor --model vit
doctor --model timm:vit_tinny
doctor --model hf:no/such-model
methods all
demo --all
demo --sections
demo --sections letters
demo --scenes many
demo --sections digits --scenes 0
demo --sections digits --scenes -3
demo --sections digits --seed a
demo --sections digits --seed -1
demo --sections digits --out map.jpg
demo --sections digits --out mine.png
demo --sections digits --out no-such-folder/map.png
demo --sections reviews --reviews 0
demo --sections reviews --out mine.png
demo --sections captions --captions -1
benchmark
benchmark .
benchmark no-such.toml
benchmark notes.txt
benchmark photo.png
benchmark bytes.toml
benchmark empty.toml
benchmark unknown.toml
benchmark small.toml --fast
benchmark small.toml --limit 0
benchmark small.toml --limit -2
benchmark small.toml --limit many
benchmark small.toml --device gpu
benchmark small.toml --device ""
benchmark small.toml --out mine.png
benchmark small.toml --out notes.txt/results
benchmark small.toml --out other
benchmark small.toml --out taken
""".replace("VIT", "--model timm:test_vit --checkpoint weights.safetensors")
COMMANDS = [split(line) for line in LINES.splitlines()]  # the first of them says nothing at all
