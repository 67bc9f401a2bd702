"""Calls of every kind, and an interrupt that comes to one of them after a while, as Ctrl-C does."""

from __future__ import annotations

import inspect
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.trace.run import state
from tests.contracts.fingerprint import fingerprint
from tests.models import CASES

Call = Callable[[], object]

METHODS = (
    "LayerCDAM", "LayerIntegratedCDAM", "PredictionMap", "VTranM", "PLUS(DecompX)", "FullGrad", "GenAtt", "AttCAT",
    "InputXGradient", "LRP", "TokenAblation", "AttentionRollout",
)  # fmt: skip


def calls(model: nn.Module, x: Tensor) -> dict[str, Call]:
    """What a user may break off: methods, and what runs the model beside them."""
    layer = cv.spec_of(model).modules()[-1].norm1
    tokens = cv.from_layer(model, layer).activation(x)
    relevance, masked = torch.rand(1, 4, 4), qm.perturb.MaskKeys()
    explained = {"x_batch": x.numpy(), "y_batch": np.ones(1, int), "explain_func": qm.explain_func(cv.LayerCDAM)}

    def of(name: str) -> Call:
        return lambda: cv.METHODS[name](model).attribute(x, target=1)

    return {name: of(name) for name in METHODS} | {
        "explain": lambda: cv.explain(model, x, 1, method="LayerCDAM"),
        "activation": lambda: cv.from_layer(model, layer).activation(x),
        "from_layer": lambda: cv.from_layer(model, layer)(tokens, x),
        "concepts": lambda: cv.ConceptSimilarity.from_images(model, {"one": x, "other": -x}),
        "similarity": lambda: cv.ConceptSimilarity(model, torch.ones(2, 24))(x),
        "deletion": lambda: qm.perturb.curves(model, x, [1], relevance, remover=masked, fractions=(0, 0.5)),
        "randomised": lambda: qm.MPRT()(model, **explained),
    }


@contextmanager
def after(delay: float) -> Iterator[None]:
    """An interrupt after some seconds, as the system sends one; it comes here at the latest."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        yield
        time.sleep(delay + 60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)


class _Steps:
    """Counts where Python looks for interrupts, and interrupts at one of these steps."""

    def __init__(self, stop: int) -> None:
        self.stop, self.n = stop, 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        goes_on = frame.f_code.co_flags & inspect.CO_GENERATOR  # profiled before its `try` is known again
        if event == "c_return" or (event == "call" and not goes_on):
            self.n += 1
            if self.n == self.stop:
                sys.setprofile(None)
                raise KeyboardInterrupt


@contextmanager
def at_event(stop: int) -> Iterator[_Steps]:
    """An interrupt at one step of what runs inside."""
    steps = _Steps(stop)
    sys.setprofile(steps)
    try:
        yield steps
    finally:
        sys.setprofile(None)


def events(call: Call) -> int:
    """How many steps it has, once it is warm."""
    call()
    with at_event(-1) as steps:
        call()
    return steps.n


def seconds(call: Call) -> float:
    """How long it takes, once it is warm and nothing else runs."""
    call()
    spent = []
    for _ in range(4):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return min(spent)


class Watched:
    """A small model, and all that an explanation must leave alone."""

    def __init__(self) -> None:
        case = CASES["timm ViT"]()
        self.model, self.x = case.forward_func, case.inputs[:1]
        self.found, self.output = self.look()

    def look(self) -> tuple[dict[str, Any], Tensor]:
        """What is found now, and the model's plain output."""
        assert not state._ONE_AT_A_TIME._is_owned(), "other threads would wait for ever"
        found = fingerprint(self.model, self.x, rng=False)
        return found, self.model(self.x).detach()

    def check(self, name: str, interrupt: AbstractContextManager[Any], call: Call) -> bool:
        """Whether the call was broken off; all is as before, with and without the traceback that holds its frames."""
        ended = False
        try:
            with interrupt:
                call()
                ended = True
        except KeyboardInterrupt as error:
            assert not self.changed(), name
            del error
        assert not self.changed(), f"{name}, once the traceback is forgotten"
        return not ended

    def changed(self) -> list[str]:
        """What is not as it was."""
        found, output = self.look()
        names = [key for key in self.found | found if self.found.get(key) != found.get(key)]
        return names + ([] if torch.equal(output, self.output) else ["the plain output"])
