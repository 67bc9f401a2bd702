"""Options are chosen on held-out samples by the metric's own scores, once, and never on pictures of the table."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import PartialState

from captum_vit.demo import demo_vit
from captum_vit.errors import InputError, OptionError
from quantus_metrics import explain_func, wrap
from quantus_metrics.benchmark import choice
from quantus_metrics.benchmark.data import DigitScenes
from quantus_metrics.benchmark.group import read_group
from quantus_metrics.benchmark.rows import read_rows
from quantus_metrics.benchmark.runner import bench_of, run
from quantus_metrics.benchmark.table import table_of
from quantus_metrics.benchmark.toml_spec import MethodSpec, read_spec, spec_of, write_spec

Tables = dict[str, Any]
FEW = {"name": "Fidelity", "options": {"fractions": [0.0, 0.5, 1.0]}}
HEADS = {"name": "head", "use": "RawAttention", "grid": {"head": [0, 1]}}


def with_choice(tables: Tables, seed: int = 1, scenes: int = 2) -> Tables:
    held_out = {"use": "digits", "options": {"scenes": scenes, "seed": seed}}
    some = {"method": [HEADS], "metric": [FEW], "data": {"use": "digits", "options": {"scenes": 2}}}
    return tables | some | {"choose": {"data": held_out, "metric": FEW}}


def test_a_grid_is_every_combination() -> None:
    part = MethodSpec("s", "LayerSmoothCDAM", {"n_samples": 2}, {"stdev": [0.1, 0.2], "rule": ["grad", "frozen"]})
    found = choice.settings_of(part)
    assert list(found) == [f"stdev={s}, rule={r}" for s in (0.1, 0.2) for r in ("grad", "frozen")]
    one = found["stdev=0.2, rule=frozen"]
    assert one.options == {"n_samples": 2, "stdev": 0.2} and one.make(demo_vit()).rule == "frozen"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("grid", "word"),
    [({"stdev": [0.1, -1]}, "at least 0"), ({"n_samples": [3]}, "not fixed"), ({"stdev": [0.1, 0.1]}, "twice"),
     ({"sigma": [1]}, "stdev")],
)  # fmt: skip
def test_a_wrong_grid_is_refused_with_the_method(grid: dict[str, Any], word: str) -> None:
    with pytest.raises(OptionError, match=word) as error:
        choice.settings_of(MethodSpec("mine", "LayerSmoothCDAM", {"n_samples": 2}, grid))
    assert "method 'mine'" in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"choose": None}, ["by which to choose", "'head'"]),
        ({"method": [{"name": "GenAtt"}]}, ["with a `grid`"]),
        ({"method": [{**HEADS, "grid": {"head": []}}]}, ["method.0.grid.head", "at least 1 item"]),
        ({"method": [{**HEADS, "grid": {"head": 3}}]}, ["method.0.grid.head", "Got: 3"]),
        ({"choose": {"data": {"use": "digits"}}}, ["'choose.metric'", "required"]),
    ],
)
def test_what_is_wrong_in_a_spec_is_named(tables: Tables, change: Tables, words: list[str]) -> None:
    with pytest.raises(OptionError) as error:
        spec_of(with_choice(tables) | change)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_spec_with_a_grid_is_read_as_written_and_has_a_hash_of_its_own(tables: Tables, tmp_path: Path) -> None:
    spec = spec_of(with_choice(tables))
    (tmp_path / "a.toml").write_text(write_spec(spec))
    assert read_spec(tmp_path / "a.toml") == spec
    assert spec.hash != spec_of(with_choice(tables, seed=2)).hash


def test_held_out_pictures_of_the_table_are_refused(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they are called; a picture that cannot be read is none."""
    with pytest.raises(InputError, match=r"'other/scene-00000/digit-1' of `choose.data`"):
        monkeypatch.setattr(choice, "make_data", lambda part: Renamed(2, seed=0))
        bench_of(spec_of(with_choice(tables)))
    choice.refuse_overlap(DigitScenes(3, seed=1), DigitScenes(3, seed=0))
    choice.refuse_overlap(Torn(3, seed=0), Torn(3, seed=0))
    with pytest.raises(InputError):
        choice.refuse_overlap(DigitScenes(3, seed=0), DigitScenes(3, seed=0))


class Renamed(DigitScenes):
    def name(self, index: int) -> str:
        return f"other/{super().name(index)}"


class Torn(DigitScenes):
    def __getitem__(self, index: int) -> Any:
        raise OSError("cut short")


@pytest.mark.slow
def test_the_best_setting_on_held_out_samples_is_measured(
    tables: Tables, state: PartialState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chosen by the metric's own scores; kept, shown, and not chosen again."""
    spec = spec_of(with_choice(tables))
    bench = run(bench_of(spec), tmp_path, state)
    chosen = bench.chosen["digits", "head"]
    model = demo_vit()
    group = read_group(DigitScenes(2, seed=1), range(4), model)[0]
    assert group is not None and bench.chooser is not None
    means = {}
    for setting, method in bench.chooser.settings["head"].items():
        explain = explain_func(method.make)
        x = group.inputs.numpy()
        means[setting] = np.mean(bench.chooser.metric(wrap(model), x, group.labels, explain_func=explain))
    assert {setting: found[0] for setting, found in chosen.scores.items()} == pytest.approx(means, rel=1e-4)
    assert chosen.setting == max(means, key=means.__getitem__) and chosen.n == 4
    fixed = {"name": "head", "use": "RawAttention", "options": {"head": int(chosen.setting[-1])}}
    plain = spec_of(with_choice(tables) | {"choose": None, "method": [fixed]})
    run(bench_of(plain), tmp_path / "plain", state)
    rows, same = read_rows(tmp_path, spec.hash), read_rows(tmp_path / "plain", plain.hash)
    assert [row.score for row in rows.values()] == [row.score for row in same.values()] and len(rows) > 4
    assert table_of(bench, rows).chosen["digits"] == [str(chosen)] and str(chosen).startswith("head: head=")

    monkeypatch.setattr(choice, "sweep", None)
    assert run(bench_of(spec), tmp_path, state).chosen == bench.chosen
    with pytest.raises(InputError, match="chosen with"):
        choice.check_chosen(bench.chosen.values(), "digits", "0" * 16)
    (tmp_path / choice.FILE).write_text("[{}]")
    with pytest.raises(InputError, match="removing that file"):
        run(bench_of(spec), tmp_path, state)
