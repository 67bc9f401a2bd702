"""The demonstration's image-text section: its table, its picture, its page."""

import pytest

import captum_vit as cv
from captum_vit.demo import digit_scenes
from captum_vit.demo.digits.model import NAMES
from quantus_metrics.demo import captions


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch):
    """Two methods instead of all."""
    monkeypatch.setattr(captions, "METHODS", {name: cv.METHODS[name] for name in ("RandomAttribution", "GenAtt")})


@pytest.mark.slow
def test_it_marks_draws_and_reads(few, tmp_path, capsys):
    marks = captions.run(tmp_path / "new.png", n=10, seed=3)
    assert [mark.method for mark in marks] == ["GenAtt", "RandomAttribution"]  # best pointing first
    assert marks[0].values["pointing"] >= 0.8 > 0.4 > marks[1].values["pointing"]
    assert all(mark.values.keys() == captions.COLUMNS.keys() and mark.values["time"] > 0 for mark in marks)
    assert (tmp_path / "new.png").stat().st_size > 10_000
    assert "photo" in (tmp_path / "new.html").read_text()
    said = capsys.readouterr().out
    assert "20 maps" in said and "| GenAtt |" in said and "new.html" in said


@pytest.mark.parametrize("existing", ["new.png", "new.html"])
def test_what_exists_is_left_alone(few, tmp_path, existing):
    (tmp_path / existing).write_text("mine")
    with pytest.raises(cv.CaptumVitError, match="overwrite"):
        captions.run(tmp_path / "new.png", n=2)
    assert (tmp_path / existing).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_words_are_read_beside_scenes():
    """The caption names a digit of each scene, which has more relevance beside its own scene than beside the other."""
    ahead = []
    for seed in range(12):
        scenes = digit_scenes(2, 2, seed=seed)
        first, second = scenes.digits.tolist()
        if set(first) & set(second):
            continue  # a digit of both scenes tells nothing
        found = captions.words(scenes)
        assert found.words[:3] == ("a", "photo", "of") and len(found.scores) == 2
        where = [found.words.index(NAMES[digits[0]]) for digits in (first, second)]
        named = found.scores[:, where]  # shape: (scenes, names)
        ahead += (named.diagonal() > named.flip(0).diagonal()).tolist()
    assert len(ahead) >= 10 and sum(ahead) >= 0.9 * len(ahead)
