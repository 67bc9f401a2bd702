"""Methods refuse what they cannot explain, before the model runs where that can be known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import captum_vit as cv
from tests.malformed.bad import IMAGES, VIT, Bad, refused, table
from tests.malformed.methods import METHOD_CALLS


@pytest.mark.parametrize("bad", table(METHOD_CALLS))
def test_a_bad_call(bad: Bad):
    refused(bad)


QUICK = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
METHODS = st.sampled_from(
    ["LayerCDAM", "GenAtt", "PredictionMap", "SkipPLUS(DecompX)", "InputXGradient", "TokenAblation"]
)


@pytest.mark.slow
@QUICK
@given(METHODS, st.lists(st.integers(0, 6), max_size=5), st.sampled_from([torch.float32, torch.float64, torch.int64]))
def test_images_of_any_shape(method: str, shape: list[int], dtype: torch.dtype):
    """The model takes (B, 3, 32, 32) alone, which these never are."""
    refused(Bad("a shape", lambda: cv.METHODS[method](VIT).attribute(torch.zeros(shape, dtype=dtype), 0), asks=True))


INDEX = st.integers(-9, 9) | st.floats() | st.booleans() | st.text(max_size=2) | st.none()


@pytest.mark.slow
@QUICK
@given(METHODS, INDEX | st.lists(INDEX, max_size=4) | st.lists(INDEX, max_size=3).map(tuple))
def test_any_target(method: str, target: object):
    """Those that index five classes explain; all others are refused before the model runs."""
    if fits(target):
        assert cv.METHODS[method](VIT).attribute(IMAGES, target).shape == (3, 1, 4, 4)
    else:
        refused(
            Bad(
                "a target",
                lambda: cv.METHODS[method](VIT).attribute(IMAGES, target),
                asks=target is None or negative(target),
            )
        )


def fits(target: object) -> bool:
    if isinstance(target, list):
        return len(target) == 3 and all(type(one) is int and 0 <= one < 5 for one in target)
    if isinstance(target, tuple):
        return len(target) == 1 and fits(target[0]) and not isinstance(target[0], tuple | list)
    return type(target) is int and -5 <= target < 5


def negative(target: object) -> bool:
    return isinstance(target, list | tuple)
