"""The demonstration's section of a language model: its table, its picture, its page."""

import pytest
import torch

import captum_vit as cv
from quantus_metrics.demo import facts


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods instead of all."""
    monkeypatch.setattr(facts, "METHODS", {name: cv.METHODS[name] for name in ("RandomAttribution", "DecompX")})


@pytest.mark.slow
def test_it_marks_and_draws(few, tmp_path, capsys):
    marks = facts.run(tmp_path / "new.png", n=10, seed=3)
    assert [mark.method for mark in marks] == ["DecompX", "RandomAttribution"]  # best first
    best, worst = (mark.values for mark in marks)
    assert best["facts"] >= 0.9 > 0.4 > worst["facts"] and best["decide"] >= 0.9 > 0.5 > worst["decide"]
    assert best["deletion"] > 90 > worst["deletion"] and best["insertion"] > 90 > worst["insertion"]
    assert all(mark.values.keys() == facts.COLUMNS.keys() and mark.values["time"] > 0 for mark in marks)
    assert (tmp_path / "new.png").stat().st_size > 10_000
    assert "DecompX" in (tmp_path / "new.html").read_text()
    said = capsys.readouterr().out
    assert "10 prompts" in said and "| DecompX |" in said and "new.html" in said


def test_a_map_on_what_decides_points_at_it() -> None:
    asked = facts.task(6, seed=1)
    maps = torch.zeros(asked.asked.inputs.shape)
    maps[:, 0] = 9  # the start token counts for nothing
    maps[range(6), 1 + asked.facts.evidence] = 1
    maps[:3].scatter_(1, 1 + asked.facts.asked[:3, None], 2)
    assert asked.points(maps) == {"facts": 1, "decide": 1}
    maps[0, 1] = 3
    assert asked.points(maps) == pytest.approx({"facts": 5 / 6, "decide": 5 / 6})
