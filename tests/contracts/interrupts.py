"""Calls of every kind, and an interrupt that comes to one of them after a while, as Ctrl-C does."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.trace import state
from tests.contracts.fingerprint import fingerprint
from tests.models import CASES

Call = Callable[[], object]

METHODS = (
    "LayerCDAM", "LayerIntegratedCDAM", "PredictionMap", "VTranM", "PLUS(DecompX)", "FullGrad", "GenAtt", "AttCAT",
    "InputXGradient", "LRP", "TokenAblation", "AttentionRollout",
)  # fmt: skip


def calls(model: nn.Module, x: Tensor) -> dict[str, Call]:
    """What a user may break off: methods, and what runs the model beside them."""
    layer = cv.spec_of(model).blocks[-1].norm1
    tokens = cv.from_layer(model, layer).activation(x)
    relevance = torch.rand(1, 4, 4)

    def of(name: str) -> Call:
        return lambda: cv.METHODS[name](model).attribute(x, target=1)

    return {name: of(name) for name in METHODS} | {
        "explain": lambda: cv.explain(model, x, 1, method="LayerCDAM"),
        "activation": lambda: cv.from_layer(model, layer).activation(x),
        "from_layer": lambda: cv.from_layer(model, layer)(tokens, x),
        "concepts": lambda: cv.ConceptSimilarity.from_images(model, {"one": x, "other": -x}),
        "similarity": lambda: cv.ConceptSimilarity(model, torch.ones(2, 24))(x),
        "deletion": lambda: qm.perturb.curves(model, x, [1], relevance, remover=qm.perturb.MaskKeys()),
    }


def interrupted(call: Call, after: float) -> tuple[bool, KeyboardInterrupt]:
    """Whether an interrupt came before the call ended; it comes in any case."""
    ended = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, after)
        call()
        ended.append(True)
        time.sleep(60)
    except KeyboardInterrupt as error:
        return not ended, error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    raise AssertionError("no interrupt came")


def seconds(call: Call) -> float:
    """How long it takes, once it is warm."""
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


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

    def changed(self) -> list[str]:
        """What is not as it was."""
        found, output = self.look()
        names = [key for key in self.found | found if self.found.get(key) != found.get(key)]
        return names + ([] if torch.equal(output, self.output) else ["the plain output"])
