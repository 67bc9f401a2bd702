"""Fixtures for the doctor: identities alone, without a trial of every method."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

import captum_vit as cv
from captum_vit.doctor import Identity


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Identity]]:
    """A model and inputs -> its identities by name; there must be no problem."""
    monkeypatch.setattr(sys.modules["captum_vit.doctor.examination"], "METHODS", {})

    def examine(*given: Any) -> dict[str, Identity]:
        report = cv.doctor(*given)
        assert not report.problems
        return {identity.name: identity for identity in report.identities}

    return examine


@pytest.fixture(autouse=True)
def few(a_few_steps: None) -> None:
    """The doctor tries every method: in every test here."""
