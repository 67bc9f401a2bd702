"""The demonstration as a whole: which sections run, what they leave, and what stops them before they begin."""

from pathlib import Path

import pytest

from captum_vit import cli
from captum_vit.errors import InputError
from quantus_metrics.demo import SECTIONS, run


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Sections that only note what they were asked."""
    calls: list[tuple] = []
    for name, section in SECTIONS.items():
        noted = lambda out, n, seed, overwrite, name=name: calls.append((name, out.name, n, seed, overwrite)) or []  # noqa: E731
        monkeypatch.setitem(SECTIONS, name, section._replace(run=noted))
    return calls


def test_sections_lie_beside_each_other(sections: list[tuple], tmp_path: Path) -> None:
    assert list(run(tmp_path / "mine.svg", n={"reviews": 7}, seed=3)) == list(SECTIONS)
    assert ("digits", "mine.svg", SECTIONS["digits"].n, 3, False) in sections
    assert ("reviews", "reviews.svg", 7, 3, False) in sections
    assert len({name for _, name, *_ in sections}) == len(SECTIONS)


@pytest.mark.parametrize("taken", ["explanations.png", "reviews.png", "captions.html"])
def test_what_is_in_the_way_is_found_before_the_work(sections: list[tuple], tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(InputError, match="overwrite"):
        run(tmp_path / "explanations.png")
    assert not sections and (tmp_path / taken).read_text() == "mine"
    run(tmp_path / "explanations.png", overwrite=True)
    assert len(sections) == len(SECTIONS)


def test_the_command_asks_for_what_it_is_told(sections: list[tuple], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", "--sections", "reviews", "--reviews", "5", "--seed", "2"]) == 0
    assert sections == [("reviews", "reviews.png", 5, 2, False)]


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.main(["demo", "--sections", "songs"])
    assert "digits" in capsys.readouterr().err
