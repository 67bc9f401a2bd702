"""Hooks and forwards that concern the passes of one thread alone, and are known by their numbers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from threading import get_ident, local
from typing import Any, TypeVar

from torch import nn

R = TypeVar("R")
_NUMBERS = count()


def next_number() -> int:
    """Later ones are larger."""
    return next(_NUMBERS)


class _Within(local):
    """How many hooks of this thread are running, one inside the other."""

    hooks = 0


_WITHIN = _Within()


def hooks_running() -> int:
    """How many hooks of this package run now in this thread: what they call, the model does not call."""
    return _WITHIN.hooks


class ThisThreadOnly:
    """A hook for the passes of this thread: another one may use the model in the meantime, and sees nothing."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.thread, self.number = get_ident(), next_number()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if get_ident() != self.thread:
            return None
        _WITHIN.hooks += 1
        try:
            return self.function(*args, **kwargs)
        finally:
            _WITHIN.hooks -= 1


def as_hook(hook: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """Runs a hook, and counts it meanwhile."""
    _WITHIN.hooks += 1
    try:
        return hook(*args, **kwargs)
    finally:
        _WITHIN.hooks -= 1


class Forward(ThisThreadOnly):
    """A function in the place of a module's forward, until it is removed."""

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__(forward)
        self.otherwise = module.forward
        self.module, self.own = module, vars(module).get("forward")
        vars(module)["forward"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self.function if get_ident() == self.thread else self.otherwise)(*args, **kwargs)

    def remove(self) -> None:
        """The forward of before; nothing, if this one is no longer there."""
        if vars(self.module).get("forward") is not self:
            return
        if self.own is None:
            vars(self.module).pop("forward")
        else:
            vars(self.module)["forward"] = self.own
