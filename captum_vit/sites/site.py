"""A site: one place in a network where a tensor can be read, or replaced, while the model runs; and what hooks it.

Hooks and forwards concern the passes of one thread, and are known by their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from threading import get_ident
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from captum_vit.sites.arranged import Visit, of_tokens
from captum_vit.sites.nests import first_tensor, swap

_NUMBERS = count()


def next_number() -> int:
    """Later ones are larger."""
    return next(_NUMBERS)


class ThisThreadOnly:
    """A hook for the passes of this thread: another one may use the model in the meantime, and sees nothing.

    What a hook calls the model does not call, and no mode sees it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.thread, self.number = function, get_ident(), next(_NUMBERS)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if get_ident() != self.thread:
            return None
        with torch._C.DisableTorchFunction():
            return self.function(*args, **kwargs)


class Forward(ThisThreadOnly):
    """A function in the place of a module's forward, until it is removed."""

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__(forward)
        self.module, self.otherwise, self.own = module, module.forward, module.__dict__.get("forward")
        module.__dict__["forward"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self.function if get_ident() == self.thread else self.otherwise)(*args, **kwargs)

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

    @property
    def features(self) -> int | None:
        """The axis of its tensor that holds features, where visitors see tokens (B, N, D) in its place."""

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
        features: the axis of its tensor that holds features, where visitors see tokens (B, N, D) in its place: all
            other axes but the batch are cells. None: they see the tensor as it is.
    """

    module: nn.Module
    side: Literal["input", "output"]
    nth: int = 0
    of: int = 1
    features: int | None = None

    @property
    def label(self) -> str:
        """For messages."""
        return type(self.module).__name__

    def hook(self, visit: Visit, *, first: bool = False) -> RemovableHandle:
        """Call ``visit`` at this site on every pass until the handle is removed.

        ``first`` visits before the hooks that are already there.
        """
        calls, visit = count(), visit if self.features is None else of_tokens(visit, self.features)

        def after(module: nn.Module, args: Any, output: Any) -> Any:
            if self.of > 1 and next(calls) % self.of != self.nth:
                return None
            old = output if isinstance(output, Tensor) else first_tensor(output)
            new = None if old is None else visit(old)
            if old is None or new is None:
                return None
            return new if old is output else swap(output, old, new)

        def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if self.of > 1 and next(calls) % self.of != self.nth:
                return None
            old = args[0] if args and isinstance(args[0], Tensor) else first_tensor((args, kwargs))
            new = None if old is None else visit(old)
            if old is None or new is None:
                return None
            single = len(args) == 1 and args[0] is old and not kwargs
            return ((new,), kwargs) if single else (swap(args, old, new), swap(kwargs, old, new))

        if self.side == "output":
            return self.module.register_forward_hook(ThisThreadOnly(after), prepend=first)
        return self.module.register_forward_pre_hook(ThisThreadOnly(before), with_kwargs=True, prepend=first)


def one_after_the_other(visits: list[Visit]) -> Visit:
    """One visit for several; each sees what the one before put in the place."""

    def all_visits(x: Tensor) -> Tensor | None:
        put = None
        for visit in visits:
            new = visit(x if put is None else put)
            put = put if new is None else new
        return put

    return visits[0] if len(visits) == 1 else all_visits


@contextmanager
def hooked(visits: Iterable[tuple[Site, Visit]]) -> Iterator[None]:
    """Inside, sites are visited; several visits of one come one after the other."""
    by_site: dict[Site, list[Visit]] = {}
    for site, visit in visits:
        by_site.setdefault(site, []).append(visit)
    handles: list[RemovableHandle] = []
    try:
        for site, of_site in by_site.items():
            handles.append(site.hook(one_after_the_other(of_site)))
        yield
    finally:
        for handle in reversed(handles):
            handle.remove()


@contextmanager
def running(forward: Callable[..., Any], modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, modules run another function in the place of their forward, in this thread; their hooks fire as ever."""
    replaced: list[Forward] = []
    try:
        for module in modules:
            replaced.append(Forward(module, forward))
        yield
    finally:
        for one in reversed(replaced):
            one.remove()


@contextmanager
def within(mode: AbstractContextManager[Any], modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, a mode is on while one of these modules runs, and off between them."""
    with ExitStack() as stack:
        for module in modules:
            stack.callback(Forward(module, partial(_under, mode, module.forward)).remove)
        yield


def _under(mode: AbstractContextManager[Any], forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with mode:
        return forward(*args, **kwargs)


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
