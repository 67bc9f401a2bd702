"""Several threads on one model: each gets what it would get alone."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import captum_vit as cv
from captum_vit.models.output import scores_of
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import Pair, draws, explain
from tests.models import SLICE, Case

TURNS = 2
PATIENCE = 60  # seconds, after which a thread that waits for another is taken to wait for ever


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """What each job returns, each in a thread of its own; they start together."""
    start = threading.Barrier(len(jobs))
    found: dict[int, Any] = {}

    def run(i: int, job: Callable[[], Any]) -> None:
        start.wait(PATIENCE)
        try:
            found[i] = job()
        except BaseException as error:
            found[i] = error

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for result in found.values():
        if isinstance(result, BaseException):
            raise result
    return [found[i] for i in range(len(jobs))]


@pytest.mark.slow
def test_two_threads_explain_one_model(slice_pair):
    """The same method in both, turn by turn, and another method in between."""
    other = Pair("GenAtt", slice_pair.model)
    wanted, beside = explain(slice_pair.on(), slice_pair.case), explain(other.on(), other.case)
    one, two, third = at_once(*(lambda pair=pair: turns(pair, TURNS) for pair in (slice_pair, slice_pair, other)))
    for found in third:
        assert_close(found, beside, "same computation")
    for found in [] if draws(slice_pair.on()) else one + two:  # all threads draw from one generator
        assert_close(found, wanted, "same computation")


def turns(pair: Pair, times: int) -> list[Tensor]:
    case, args = pair.case, pair.case.additional_forward_args or None
    return [pair.on().attribute(case.inputs, target=case.target, additional_forward_args=args) for _ in range(times)]


@pytest.mark.along("name", SLICE)
def test_another_thread_uses_the_model_meanwhile(method: str, name: str):
    """It is served as ever, whatever hooks and forwards of ours are on: here whenever a block but the last begins."""
    pair = Pair(method, name)
    case = pair.case
    usual = output(case)
    explaining, served = threading.get_ident(), []

    def interrupt(*_: Any) -> None:
        if threading.get_ident() == explaining and len(served) < TURNS:
            served.append(None)
            served[-1:] = at_once(lambda: output(case))

    blocks = cv.spec_of(case.forward_func).modules()
    wanted = explain(pair.on(), case)
    handles = [block.register_forward_hook(interrupt) for block in blocks[:-1]]
    try:
        found = explain(pair.on(), case)
    finally:
        for handle in handles:
            handle.remove()
    assert_close(found, wanted, "same computation")
    assert all(torch.equal(one, usual) for one in served)


def output(case: Case) -> Tensor:
    return scores_of(case.forward_func(case.inputs, *case.additional_forward_args)).detach()
