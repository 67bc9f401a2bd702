"""A spec is read as it was written, and refused with the key, the value and what is allowed."""

import sys
from datetime import date
from typing import Any

import pytest

from captum_vit import METHODS, SkipPLUS
from captum_vit.demo import demo_vit
from captum_vit.errors import InputError, OptionError
from quantus_metrics.benchmark.factories import make_data, make_method, make_metric
from quantus_metrics.benchmark.toml_spec import DataSpec, MethodSpec, MetricSpec, Spec, read_spec, spec_of, write_spec
from tests.quantus_metrics.benchmark.conftest import TABLES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def nested(depth: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for _ in range(depth):
        table = {"a": table}
    return table


def test_toml_and_dataclasses_say_the_same(tables: dict[str, Any]) -> None:
    tables |= {"source": "a paper", "published": [
        {"model": "digits", "method": "GenAtt", "metric": "Fidelity", "value": 8.5},
    ]}  # fmt: skip
    spec = spec_of(tables)
    assert spec_of(tomllib.loads(write_spec(spec))) == spec
    assert spec.method[1].method == "RandomAttribution" and spec.method[0].method == "GenAtt"


def test_the_hash_knows_what_numbers_depend_on(tables: dict[str, Any]) -> None:
    spec = spec_of(tables)
    assert spec_of(tables | {"title": "another", "note": "x"}).hash == spec.hash
    for change in ({"seed": 1}, {"batch_size": 3}, {"precision": "bfloat16"}, {"method": tables["method"][:1]}):
        assert spec_of(tables | change).hash != spec.hash


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sed": 1}, ["'sed'", "seed"]),
        ({"batch_size": 0}, ["'batch_size'", "greater than 0", "Got: 0"]),
        ({"batch_size": "many"}, ["'batch_size'", "'many'"]),
        ({"batch_size": True}, ["'batch_size'", "Got: True"]),
        ({"batch_size": "16"}, ["'batch_size'", "Got: '16'"]),
        ({"seed": True}, ["'seed'", "Got: True"]),
        ({"model": [{"name": "a", "load": "b", "pretrained": "no"}]}, ["'model.0.pretrained'", "Got: 'no'"]),
        ({"model": [{"name": "a", "load": "b", "head": "many"}]}, ["'model.0.head'", "'labels'"]),
        ({"data": {"use": "digits", "options": {"on": date(2026, 1, 1)}}}, ["'data.options.on'", "a date as a text"]),
        ({"data": {"use": "digits", "options": nested(5000)}}, ["'data.options.a", "too many"]),
        ({"precision": "float8"}, ["'precision'", "bfloat16", "'float8'"]),
        ({"model": [{"load": "demo:digits"}]}, ["'model.0.name'", "required", "checkpoint"]),
        ({"method": []}, ["[[method]]"]),
        ({"method": [{"name": "A"}, {"name": "A"}]}, ["'A' is used twice"]),
        ({"published": [{"model": "digits", "method": "X", "metric": "Fidelity", "value": 1}]}, ["no method 'X'"]),
        ({"published": [{"model": "digits", "method": "GenAtt", "metric": "Fidelity", "value": "x"}]}, ["published.0"]),
    ],
)
def test_what_is_wrong_is_named(tables: dict[str, Any], change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(OptionError) as error:
        spec_of(tables | change, "file.toml")
    assert all(word in str(error.value) for word in ["file.toml", *words]), str(error.value)


def test_files_that_are_no_specs(tmp_path: Any) -> None:
    with pytest.raises(InputError, match=r"no file"):
        read_spec(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("title = ")
    with pytest.raises(InputError, match=r"TOML"):
        read_spec(tmp_path / "broken.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(InputError, match=r"deep\.toml"):
        read_spec(tmp_path / "deep.toml")
    (tmp_path / "date.toml").write_text(write_spec(spec_of(TABLES)).replace("scenes = 5", "scenes = 2026-01-01"))
    with pytest.raises(OptionError, match=r"'data\.options\.scenes'"):
        read_spec(tmp_path / "date.toml")


@pytest.mark.parametrize(
    ("make", "part", "words"),
    [
        (make_data, DataSpec("digit"), ["'digit'", "digits"]),
        (make_data, DataSpec("digits", {"scene": 3}), ["'scene'", "scenes"]),
        (make_data, DataSpec("folder"), ["'root'"]),
        (make_metric, MetricSpec("x", "Deletion", {"remover": {"use": "ReplaceTokens"}}), ["'token_id'"]),
        (make_method, MethodSpec("GenAt"), ["'GenAt'", "GenAtt"]),
        (make_method, MethodSpec("x", "PLUS(Nothing)"), ["'Nothing'"]),
        (make_method, MethodSpec("LayerSmoothCDAM", options={"sigma": 1}), ["'sigma'", "stdev"]),
        (make_metric, MetricSpec("Fidelty"), ["'Fidelty'", "Fidelity"]),
        (make_metric, MetricSpec("Fidelity", options={"pach": 1}), ["'pach'", "patch_size"]),
        (make_metric, MetricSpec("x", "quantus.Sparsity"), ["quantus.Sparseness"]),
        (make_metric, MetricSpec("x", "Fidelity", {"remover": {"use": "Blurr"}}), ["'Blurr'", "Blur"]),
        (make_metric, MetricSpec("x", "Fidelity", {"remover": {"use": "Blur", "sgma": 1}}), ["'sgma'", "sigma"]),
    ],
)
def test_names_and_options_are_checked_when_parts_are_made(make: Any, part: Any, words: list[str]) -> None:
    with pytest.raises(OptionError) as error:
        make(part)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_options_go_where_they_belong() -> None:
    smooth = make_method(MethodSpec("s", "LayerSmoothCDAM", {"rule": "frozen", "n_samples": 3}))
    assert smooth.options == {"n_samples": 3} and smooth.make.keywords == {"rule": "frozen"}  # type: ignore[attr-defined]
    metric = make_metric(MetricSpec("f", "Fidelity", {"remover": {"use": "Fill", "value": 1.0}}))
    assert metric.remover.value == 1.0 and metric.return_curves


def test_a_sum_takes_its_options_though_it_is_a_method_of_its_own() -> None:
    assert "SkipPLUS(DecompX)" in METHODS
    late = make_method(MethodSpec("late", "SkipPLUS(DecompX)", {"start_layer": 4})).make(demo_vit(pretrained=False))
    assert isinstance(late, SkipPLUS) and late.start_layer == 4


def test_a_metric_may_stand_in_a_metric() -> None:
    inner = {"use": "BoxSensitivity", "n_boxes": 7}
    metric = make_metric(MetricSpec("d", "ClassDiscrimination", {"metric": inner}))
    assert type(metric.metric).__name__ == "BoxSensitivity" and metric.metric.n_boxes == 7
    with pytest.raises(OptionError, match="'n_boxe'"):
        make_metric(MetricSpec("d", "ClassDiscrimination", {"metric": {"use": "BoxSensitivity", "n_boxe": 7}}))


def test_a_spec_is_frozen(tables: dict[str, Any]) -> None:
    with pytest.raises(AttributeError):
        spec_of(tables).seed = 3  # type: ignore[misc]
    assert isinstance(spec_of(tables), Spec)
