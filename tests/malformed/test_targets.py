"""Targets, specs, explain and its pictures refuse what makes no sense."""

from __future__ import annotations

import pytest

import captum_vit as cv
from tests.malformed.bad import BERT, CONVNET, IMAGES, VIT, Bad, refused, table
from tests.malformed.targets import TARGET_CALLS


@pytest.mark.parametrize("bad", table(TARGET_CALLS))
def test_a_bad_call(bad: Bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(bad)
    assert not list(tmp_path.iterdir())


DOCTORED = {
    "no model": (None, IMAGES), "no transformer": (CONVNET, IMAGES), "no tensor": (VIT, "photo.jpg"),
    "no sample": (VIT, IMAGES[:0]),
    "NaN": (VIT, IMAGES / 0), "another size": (VIT, IMAGES[..., :9]), "pictures for words": (BERT, IMAGES),
}  # fmt: skip


@pytest.mark.parametrize("what", DOCTORED)
def test_the_doctor_reports_in_the_words_of_the_error(what: str):
    """Its answer to what cannot be explained is a report, in which no method works and nothing is called a defect."""
    report = cv.doctor(*DOCTORED[what])
    assert report.problems and all(report.methods.values())
    said = " ".join(str(report).split())
    assert "Got: " in said and "Try: " in said and "defect" not in said.lower()
