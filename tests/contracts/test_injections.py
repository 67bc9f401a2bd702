"""Hundreds of failures, at any place of any model under any method: nothing stays behind, and the failure comes out."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import captum_vit as cv
from tests.contracts.fingerprint import fingerprint, random_state
from tests.contracts.pairs import ALL, REFUSED, Pair, draws, explain

INJECTIONS = 500
MOST_TRIES = 20  # for each injection: a place that does not run, or not so often, is drawn anew


class Injected(Exception):
    """Of no family that anybody knows."""


# Also what this package may catch and say in its own words, and what no `except Exception` catches.
ERRORS = (Injected, RuntimeError, ValueError, KeyboardInterrupt)


class Fuse:
    """Blows when it is touched for the n-th time."""

    def __init__(self, error: BaseException, times: int) -> None:
        self.error, self.left = error, times

    def touch(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


class OnTheWayBack(torch.autograd.Function):
    """The identity, whose gradient touches a fuse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fuse: Fuse) -> Tensor:
        ctx.fuse = fuse
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.fuse.touch()
        return grad, None


class AtAnyCall(TorchFunctionMode):
    """Every call of torch touches the fuse, whoever makes it."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self.fuse = fuse

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.fuse.touch()
        return func(*args, **kwargs or {})


@contextmanager
def before(module: nn.Module, fuse: Fuse) -> Iterator[None]:
    handle = module.register_forward_pre_hook(fuse.touch)
    yield
    handle.remove()


@contextmanager
def after(module: nn.Module, fuse: Fuse) -> Iterator[None]:
    handle = module.register_forward_hook(fuse.touch)
    yield
    handle.remove()


@contextmanager
def inside(module: nn.Module, fuse: Fuse) -> Iterator[None]:
    """In the forward itself, which is a patched one."""
    own = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = own(*args, **kwargs)
        fuse.touch()
        return output

    module.forward = forward
    yield
    assert vars(module)["forward"] is forward, "a patch of the user's own is gone"
    del module.forward


@contextmanager
def at_gradient(module: nn.Module, fuse: Fuse) -> Iterator[None]:
    """In a hook on the gradient of what the module returns."""

    def watch(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(fuse.touch)

    handle = module.register_forward_hook(watch)
    yield
    handle.remove()


@contextmanager
def in_backward(module: nn.Module, fuse: Fuse) -> Iterator[None]:
    """In the backward of an autograd function behind the module."""

    def append(module: nn.Module, args: Any, output: Any) -> Any:
        return OnTheWayBack.apply(output, fuse) if isinstance(output, Tensor) and output.requires_grad else None

    handle = module.register_forward_hook(append)
    yield
    handle.remove()


def anywhere(module: nn.Module, fuse: Fuse) -> AbstractContextManager[Any]:
    return AtAnyCall(fuse)


# How to fail, and how often the place may be passed before it does.
WAYS: dict[Callable[[nn.Module, Fuse], AbstractContextManager[Any]], int] = {
    before: 2, after: 2, inside: 2, at_gradient: 1, in_backward: 1, anywhere: 200,
}  # fmt: skip


def inject(pair: Pair, dice: random.Random) -> bool:
    """One failure, if the place that was drawn is reached; all is then as before."""
    way, most = dice.choice(list(WAYS.items()))
    module = dice.choice(reached(pair.model))
    error = dice.choice(ERRORS)("injected")
    drawing, come_out = draws(pair.on()), None
    torch.manual_seed(0)  # as `explain` does
    numbers = None if drawing else random_state()
    fuse = Fuse(error, dice.randint(1, most))
    with way(module, fuse):
        try:
            explain(pair.on(), pair.case)
        except BaseException as caught:
            come_out = caught
    assert state(pair.model) == usual(pair.model), f"{way.__name__} {type(module).__name__}"
    assert drawing or random_state() == numbers
    if come_out is not None and fuse.left > 0:  # what was put in makes other torch calls, which is refused
        assert isinstance(come_out, cv.CaptumVitError), come_out
        return False
    if come_out is not None:
        assert come_out is error or (isinstance(come_out, cv.CaptumVitError) and come_out.__cause__ is error), come_out
    return come_out is not None


@cache
def reached(model: str) -> list[nn.Module]:
    """The modules that run when the model does."""
    case, ran = ALL[model](), []
    handles = [m.register_forward_hook(lambda m, *_: ran.append(m)) for m in case.forward_func.modules()]
    case.forward_func(case.inputs, *case.additional_forward_args)
    for handle in handles:
        handle.remove()
    return ran


def state(model: str) -> dict[str, Any]:
    case = ALL[model]()
    return fingerprint(case.forward_func, case.inputs, *case.additional_forward_args, rng=False)


@cache
def usual(model: str) -> dict[str, Any]:
    """The state before any failure, and so after each."""
    return state(model)


@pytest.mark.slow
def test_nothing_stays_behind(method: str):
    dice, share = random.Random(method), -(-INJECTIONS // len(cv.METHODS))
    models = [name for name in ALL if (method, name) not in REFUSED]
    for model in models:
        usual(model)
    blown = tries = 0
    while blown < share and tries < MOST_TRIES * share:
        blown += inject(Pair(method, dice.choice(models)), dice)
        tries += 1
    assert blown == share
