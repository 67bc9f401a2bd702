"""Arguments of the exam's tests: `method` is each name in METHODS, `pair` a method on a model."""

import pytest

import captum_vit as cv
from tests.contracts.pairs import ALL, IMAGES, pairs
from tests.models import SLICE, TEXTS

pytest.register_assert_rewrite("tests.contracts.closeness")

MODELS = {
    "pair": tuple(ALL),
    "image_pair": IMAGES,
    "text_pair": tuple(TEXTS),
    "slice_pair": SLICE,
    "hugging_face_pair": tuple(name for name in ALL if name.startswith("HF ")),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "method" in metafunc.fixturenames:
        metafunc.parametrize("method", cv.METHODS)
    for argument, models in MODELS.items():
        if argument in metafunc.fixturenames:
            full = metafunc.config.getoption("--full")
            metafunc.parametrize(argument, pairs(metafunc.function.__name__, models, full), ids=str)
