"""A site: one place in a network where a tensor can be read, or replaced, while the model runs; and what hooks it.

Hooks and forwards concern the passes of one thread alone, and are known by their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from threading import get_ident, local
from typing import Any, Literal, Protocol, TypeVar

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from captum_vit.sites.nests import first_tensor, swap

R = TypeVar("R")
Visit = Callable[[Tensor], Tensor | None]
"""Sees the tensor at a site; returns another one to put in its place, or None to leave it."""

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
        self.function, self.thread, self.number = function, get_ident(), next(_NUMBERS)

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
    """A context in which a module runs another function in the place of its forward; its hooks fire as ever."""

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__(forward)
        self.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self.function if get_ident() == self.thread else self.otherwise)(*args, **kwargs)

    def __enter__(self) -> None:
        self.otherwise, self.own = self.module.forward, self.module.__dict__.get("forward")
        self.module.__dict__["forward"] = self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def remove(self) -> None:
        """The forward of before; nothing, if this one is no longer there."""
        if self.module.__dict__.get("forward") is not self:
            return
        if self.own is None:
            del self.module.__dict__["forward"]
        else:
            self.module.__dict__["forward"] = self.own


class Handle(Protocol):
    """What a hook is removed by."""

    def remove(self) -> None:
        """Visit no more."""


class Place(Protocol):
    """Where a tensor of a pass can be read or replaced: at a module (:class:`Site`), or as a result of a torch call."""

    @property
    def label(self) -> str:
        """For messages."""

    @property
    def of(self) -> int:
        """How many calls of its kind a pass makes."""

    def hook(self, visit: Visit, *, first: bool = False) -> Handle:
        """Call ``visit`` there on every pass until the handle is removed."""


@dataclass(frozen=True)
class Site:
    """The first tensor that enters a module, or the first that leaves it.

    Keyword-only inputs, and outputs such as ``(tensor, None)``, are understood. Where a module is given
    the same tensor several times (query, key and value), all are replaced together.

    Args:
        module: the module.
        side: where its tensor is.
        nth: which of its calls, where it runs several times in a pass.
        of: how many calls a pass makes; 1 means that every call is visited.
    """

    module: nn.Module
    side: Literal["input", "output"]
    nth: int = 0
    of: int = 1

    @property
    def label(self) -> str:
        """For messages."""
        return type(self.module).__name__

    def hook(self, visit: Visit, *, first: bool = False) -> RemovableHandle:
        """Call ``visit`` at this site on every pass until the handle is removed.

        ``first`` visits before the hooks that are already there.
        """
        calls = count()

        def after(module: nn.Module, args: Any, output: Any) -> Any:
            if self.of > 1 and next(calls) % self.of != self.nth:
                return None
            old = output if isinstance(output, Tensor) else first_tensor(output)
            new = None if old is None else visit(old)
            return new if new is None or old is output else swap(output, old, new)

        def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if self.of > 1 and next(calls) % self.of != self.nth:
                return None
            old = args[0] if args and isinstance(args[0], Tensor) else first_tensor((args, kwargs))
            new = None if old is None else visit(old)
            return None if old is None or new is None else (swap(args, old, new), swap(kwargs, old, new))

        if self.side == "output":
            return self.module.register_forward_hook(ThisThreadOnly(after), prepend=first)
        return self.module.register_forward_pre_hook(ThisThreadOnly(before), with_kwargs=True, prepend=first)


class _Reached(Exception):
    """The place has been reached: nothing else is needed."""


def reached(place: Place, run: Callable[[], object]) -> Tensor | None:
    """What is at a place in a run, which ends there; None where the run ends without it."""
    seen: list[Tensor] = []

    def stop(x: Tensor) -> None:
        seen.append(x)
        raise _Reached

    handle = place.hook(stop)  # from here on torch calls are those of the run
    try:
        run()
    except _Reached:
        pass
    finally:
        handle.remove()
    return seen[0] if seen else None
