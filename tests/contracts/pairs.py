"""Who sits the exam: methods x models, pairwise by default and all of them with ``--full``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from zlib import crc32

import pytest
import torch
from captum.attr import Attribution
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.attr.input_gradient import smooth_grad
from tests.models import CASES, FURTHER, OF_TOKENS, READ_HEADS, SLICE, SWIN, TEXTS, TRAINED, Case

ALL = CASES | FURTHER | TRAINED
IMAGES = tuple(name for name in ALL if name not in TEXTS)
SLICE_METHODS = ("LayerCDAM", "PredictionMap", "GenAtt", "SkipPLUS(DecompX)")

# What a method refuses by name, and says so: see test_bad_input.
REFUSED = {(method, "timm EVA-02 CLIP") for method in READ_HEADS}
REFUSED |= {(method, SWIN) for method in cv.METHODS if method not in OF_TOKENS}

# Methods that divide by sums near zero refuse half precision, whose rounding they would show.
IN_FULL_PRECISION = {"LRP", "PartialLRP", "TransAttr"}


class Pair(NamedTuple):
    """A method and a model, by name."""

    method: str
    model: str

    def __str__(self) -> str:
        return f"{self.method}-{self.model}"

    @property
    def case(self) -> Case:
        return ALL[self.model]()

    @property
    def exact(self) -> Case:
        """The case in double precision, for comparisons up to rounding."""
        return in_float64(self.model)

    @property
    def rounding(self) -> str:
        """What two maps in double precision may differ by: a line of ``closeness.TOLERANCE``."""
        return "float64, divided by sums near zero" if self.method in IN_FULL_PRECISION else "float64"

    def on(self, forward_func: nn.Module | None = None) -> Attribution:
        """The method on this model, or on another in its place."""
        return cv.METHODS[self.method](self.case.forward_func if forward_func is None else forward_func)


def pairs(test: str, models: tuple[str, ...], full: bool) -> list[Pair]:
    """Every pair; or a covering that differs from test to test: each method on some models and vice versa."""
    methods = list(cv.METHODS)
    if full:
        chosen = [Pair(method, model) for method in methods for model in models]
    else:
        first = crc32(test.encode())
        steps = range(first, first + max(len(methods), len(models)))
        diagonal = [Pair(methods[i % len(methods)], models[i % len(models)]) for i in steps]
        chosen = [*diagonal, *quick(models)]
    return [pair for pair in dict.fromkeys(chosen) if pair not in REFUSED]


def quick(models: tuple[str, ...]) -> list[Pair]:
    """For the quick loop: each of its methods on two of its models, and each of these under two methods."""
    slice_ = [model for model in SLICE if model in models]
    return [Pair(m, slice_[(i + j) % len(slice_)]) for i, m in enumerate(SLICE_METHODS) for j in (0, 1) if slice_]


def in_turn(rows: list[Any], n: int) -> list[tuple[Any, int]]:
    """Each row with one of n numbers: those of a model's pairs follow one another, and the next model begins later."""
    begins: dict[str, int] = {}
    turns = []
    for place, row in enumerate(rows):
        model = row.model if isinstance(row, Pair) else ""
        turn = begins.setdefault(model, place % n)
        turns.append((row, turn))
        begins[model] = (turn + 1) % n
    return turns


def explain(method: Attribution, case: Case, **changes: Any) -> Any:
    """The map of a case; sampling methods start from the same random numbers."""
    torch.manual_seed(0)
    case = case._replace(**changes)
    return method.attribute(
        case.inputs, target=case.target, additional_forward_args=case.additional_forward_args or None
    )


@contextmanager
def half_precision(method: str) -> Iterator[None]:
    """Around the explanation of a half-precision model, and what is then asked of it; or it is refused."""
    if method in IN_FULL_PRECISION:
        with pytest.raises(cv.ModelStateError, match="float32"):
            yield
    else:
        yield


@cache
def in_float64(model: str) -> Case:
    """A model of the exam, its inputs and further arguments, in double precision."""
    case = ALL[model]()
    inputs = case.inputs.double() if case.inputs.is_floating_point() else case.inputs
    double = copy.deepcopy(case.forward_func).double()
    return cast(case, torch.float64)._replace(forward_func=double, inputs=inputs)


def cast(case: Case, dtype: torch.dtype) -> Case:
    """Further arguments of a model in its precision, as a user passes them; inputs are cast by the methods."""
    args = (x.to(dtype) if x.is_floating_point() else x for x in case.additional_forward_args)
    return case._replace(additional_forward_args=tuple(args))


def rows(case: Case, index: Any) -> Case:
    """Some samples of a batch."""
    args = tuple(arg[index] if isinstance(arg, Tensor) else arg for arg in case.additional_forward_args)
    return case._replace(
        inputs=case.inputs[index],
        additional_forward_args=args,
        target=torch.as_tensor(case.target)[index].tolist(),
    )


@cache
def knows_targets(pair: Pair) -> bool:
    """Whether the map depends on the target at all; methods that know none ignore it."""
    one, other = (explain(pair.on(), pair.case, target=target) for target in (0, 3))
    return not torch.equal(one, other)


def draws(method: Attribution) -> bool:
    """Whether a method samples: from its generator or torch's own, and a row depends on its place in the batch."""
    if getattr(method, "method", None) is smooth_grad:
        return True
    return hasattr(method, "generator") or "generator" in inspect.signature(method.attribute).parameters
