"""Calls leave no memory behind, and need no garbage collector for what they used."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import torch

import captum_vit as cv
from tests.contracts.pairs import SLICE_METHODS, Pair, explain
from tests.models import SLICE

CALLS = 500
RING = [Pair(method, SLICE[i % len(SLICE)]) for i, method in enumerate(cv.METHODS)]


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, nothing is cleared up but what nobody refers to, and what was there before is not looked at."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def live() -> int:
    return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())


@pytest.mark.slow
def test_no_tensor_outlives_a_call():
    """Not even in a cycle, which would hold a graph, and a card's memory, until the collector comes by."""
    for pair in RING:
        explain(pair.on(), pair.case)
    with uncollected():
        left = {}
        for pair in RING:
            before = live()
            explain(pair.on(), pair.case)
            left[str(pair)] = live() - before
    assert {name: count for name, count in left.items() if count} == {}


@pytest.mark.slow
def test_no_tensor_outlives_a_failure():
    """Once its traceback is gone."""
    with uncollected():
        for pair in RING:
            with suppress(cv.TargetError):  # methods that know no target do not mind
                explain(pair.on(), pair.case, target=99)
        gc.collect()
        assert live() == 0


@pytest.mark.slow
def test_memory_is_flat_over_many_calls():
    pairs = [Pair(method, model) for method in (*SLICE_METHODS, "FullGradPlus") for model in SLICE]

    def calls(n: int) -> tuple[int, int]:
        """Afterwards: tensors, and blocks of memory that Python holds, whatever for."""
        for i in range(n):
            explain(pairs[i % len(pairs)].on(), pairs[i % len(pairs)].case)
        gc.collect()
        return live(), sys.getallocatedblocks()

    calls(2 * len(pairs))
    tensors, blocks = calls(len(pairs))
    more_tensors, more_blocks = calls(CALLS)
    assert more_tensors == tensors
    assert more_blocks - blocks < CALLS / 2
