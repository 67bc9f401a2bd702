"""Eight methods on one model, and what must hold where they work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

import captum_vit as cv
from tests.compatibility import Verdict
from tests.contracts.fingerprint import fingerprint
from tests.families.checks import CHECKS, Differs, NotApplicable, explained, first_line
from tests.models import Case

METHODS = (
    "LayerCDAM", "GenAtt", "DecompX", "VTranM", "AttentionRollout", "InputXGradient", "TokenAblation", "PredictionMap",
)  # fmt: skip
EQUAL = "equal"
ZERO = "A map that is not zero everywhere; a ZeroMapWarning says so."


@dataclass
class Result:
    """What was seen of one model.

    Args:
        not_built: why it could not be built, or run as it is.
        verdicts: of each method, that it works or why it refuses.
        checks: of each check ``equal``, or why there is nothing to compare with.
        failures: of methods and checks whatever else happened: a check that does not hold, an error that is none of
            this package's.
    """

    not_built: str = ""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def working(self) -> list[str]:
        return [method for method, verdict in self.verdicts.items() if verdict.works]


def trial(build: Callable[[str], Case], name: str) -> Result:
    """Build a model, try every method, and check those that work."""
    torch.manual_seed(sum(map(ord, name)))
    try:
        case = built(build, name)
    except Exception as error:  # a library's own, of any kind
        return Result(f"{type(error).__name__}: {first_line(error)}")
    result, maps = Result(), {}
    for method in METHODS:
        with noted(result, method):
            maps |= tried(method, case, result)
    for check in CHECKS if maps else ():
        with noted(result, check.__name__):
            try:
                check(case, maps)
                result.checks[check.__name__] = EQUAL
            except NotApplicable as reason:
                result.checks[check.__name__] = str(reason)
    return result


@contextmanager
def noted(result: Result, what: str) -> Iterator[None]:
    """Enter what else happens as a failure."""
    try:
        yield
    except Differs as difference:
        result.failures[what] = str(difference)
    except Exception as error:
        result.failures[what] = f"{type(error).__name__}: {first_line(error)}"


def tried(method: str, case: Case, result: Result) -> dict[str, Tensor]:
    """The map of a method, which leaves the model as it was; nothing where it refuses."""
    before = fingerprint(case.forward_func, case.inputs, rng=False)
    heard: list[str] = []
    try:
        found = explained(method, case, heard=heard)
    except cv.CaptumVitError as error:
        result.verdicts[method] = Verdict(works=False, said=error.wanted, got=error.got)
        return {}
    if not found.any() and "ZeroMapWarning" in heard:
        result.verdicts[method] = Verdict(works=False, said=ZERO)
        return {}
    if not torch.isfinite(found).all() or len(found.unique()) < 2:
        raise Differs("a map that is not finite, or constant")
    if fingerprint(case.forward_func, case.inputs, rng=False) != before:
        raise Differs("the model is not left as it was found")
    result.verdicts[method] = Verdict()
    return {method: found}


def built(build: Callable[[str], Case], name: str) -> Case:
    """The model, seen to run, with a target for each sample: of outputs for each token, one of the third."""
    case = build(name)
    with torch.no_grad():
        scores = case.forward_func(case.inputs, *case.additional_forward_args)
    scores = scores if isinstance(scores, Tensor) else scores.logits
    if not torch.isfinite(scores).all():
        raise ValueError("scores that are not finite")
    classes = [k % scores.shape[-1] for k in (1, 4, 2)]
    places = tuple(min(2, n - 1) for n in scores.shape[1:-1])
    return case._replace(target=[(*places, k) if places else k for k in classes])
