"""Arguments of the tests of contracts: `method` is each name in METHODS, `pair` a method on a model.

`-m "not slow"` asks four methods on four models alone.

``@pytest.mark.along("how", HOWS)`` gives a test one more argument, whose values take turns from pair to pair: every
model meets one after the other, and so does every method. ``parametrize`` instead would ask each pair all of them, as
``--full`` does.
"""

from collections.abc import Generator
from typing import Any

import pytest

import captum_vit as cv
from tests.contracts.advice import ADVICE
from tests.contracts.pairs import ALL, IMAGES, SLICE_METHODS, in_turn, pairs
from tests.models import SLICE, TEXTS

pytest.register_assert_rewrite("tests.contracts.closeness")

MODELS = {
    "pair": tuple(ALL),
    "image_pair": IMAGES,
    "text_pair": tuple(TEXTS),
    "slice_pair": SLICE,
    "hugging_face_pair": tuple(name for name in ALL if name.startswith("HF ")),
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under a failure of a method: what to change in it."""
    report = yield
    if report.failed and report.when == "call" and {"method", *MODELS} & set(getattr(item, "fixturenames", ())):
        report.sections.append(("what to do", ADVICE[item.path.stem]))
    return report


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"method", *MODELS} & set(metafunc.fixturenames):
        assert metafunc.definition.path.stem in ADVICE, "tests/contracts/advice.py: put in what to do for this file"
    full = metafunc.config.getoption("--full")
    if "method" in metafunc.fixturenames:
        parametrized(metafunc, "method", list(cv.METHODS), full)
    for argument, models in MODELS.items():
        if argument in metafunc.fixturenames:
            parametrized(metafunc, argument, pairs(metafunc.function.__name__, models, full), full)


def parametrized(metafunc: pytest.Metafunc, argument: str, rows: list[Any], full: bool) -> None:
    """Each row; where a marker names values that come along, each with one of them, or with all."""
    marker = metafunc.definition.get_closest_marker("along")
    if marker is None:
        metafunc.parametrize(argument, [pytest.param(row, id=str(row), marks=marks(row)) for row in rows])
        return
    name, values, *ids = marker.args
    words = dict(enumerate(ids[0] if ids else map(str, values)))
    turns = [(row, i) for row in rows for i in words] if full else in_turn(rows, len(words))
    met = [pytest.param(row, list(values)[i], id=f"{row}-{words[i]}", marks=marks(row)) for row, i in turns]
    metafunc.parametrize((argument, name), met)


def marks(row: Any) -> tuple[pytest.MarkDecorator, ...]:
    """What is not among the few methods and models of the quick loop is slow."""
    method, model = row if isinstance(row, tuple) else (row, SLICE[0])
    return () if method in SLICE_METHODS and model in SLICE else (pytest.mark.slow,)


@pytest.fixture(autouse=True)
def few(a_few_steps: None) -> None:
    """In every test here."""
