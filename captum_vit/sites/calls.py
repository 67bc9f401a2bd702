"""The torch calls of a pass, numbered as the model makes them, and their results as sites."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import local
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import TraceError
from captum_vit.sites.arranged import Visit, of_tokens
from captum_vit.sites.mode import Mode
from captum_vit.sites.nests import swap, tensors_in


class Calls(Mode):
    """Numbers the torch calls of a pass that return a tensor: those of the model's own code, not those of visits.

    ``nn.MultiheadAttention`` counts as the calls that it is made of. Enter it after all other modes: the last mode
    sees a call first, as the model makes it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number = 0  # of the next call

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Runs one call; what it returns takes the place of the result."""
        if _VISITED.now:
            return func(*args, **kwargs)
        result = self.made(func, args, kwargs)
        results = tensors_in(result)
        if results:
            number, self.number = self.number, self.number + 1
            result = self.returned(number, func, args, result, results)
        return result

    def made(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What a call of the model's own code returns; it has the number ``self.number`` if that is a tensor."""
        return func(*args, **kwargs)

    def returned(self, number: int, func: Any, args: tuple[Any, ...], result: Any, results: list[Tensor]) -> Any:
        """Sees the results of a call; what it returns takes their place."""
        return result


def name_of(func: Any) -> str:
    """A torch function as people write it, such as ``add``, ``__getitem__``, or ``mT``, an attribute."""
    name: str = getattr(func, "__name__", str(func))
    return name_of(func.__self__) if name == "__get__" else name


def called_by() -> str:
    """The two innermost modules that run now, by their classes."""
    found: list[nn.Module] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(found) < 2:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and all(owner is not module for module in found):
            found.append(owner)
        frame = frame.f_back
    return " in ".join(type(module).__name__ for module in found)


def works_in_place(name: str) -> bool:
    """Whether a function of this name writes into its first argument: ``add_``, ``__iadd__``, ``__setitem__``."""
    return (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" or name in _AUGMENTED


_AUGMENTED = {f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "pow", "mod", "and", "or", "xor")}


@dataclass(frozen=True)
class ValueSite:
    """A result of one of the torch calls of a pass, where no module takes or returns it alone.

    Args:
        number: which call, counted by :class:`Calls`.
        name: of the function; a pass that calls another one there is refused.
        result: which of the tensors that the call returns.
        of: how many calls a whole pass makes; another number is refused.
        features: as of a :class:`Site`.
    """

    number: int
    name: str
    result: int
    of: int
    features: int | None = None

    @property
    def label(self) -> str:
        """For messages."""
        return f"the result of torch call {self.number} of {self.of} ({self.name})"

    def hook(self, visit: Visit, *, first: bool = False) -> Entered:
        """Call ``visit`` with this value on the next pass, until the handle is removed.

        Modes that are entered later see the model's calls before; enter them first.
        """
        return Entered(Visits([(self, visit)]))


class Visits(Calls):
    """Visits values of a pass, and puts others in their place.

    The visitor is given a tensor that nobody changes in place afterwards; the model goes on with a copy of it.

    Args:
        names: of all calls, where any other is refused.
    """

    def __init__(self, visits: Sequence[tuple[ValueSite, Visit]], names: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.by_number: dict[int, list[tuple[ValueSite, Visit]]] = {}
        for site, visit in visits:
            visit = visit if site.features is None else of_tokens(visit, site.features)
            self.by_number.setdefault(site.number, []).append((site, visit))
        self.of = len(names) or (visits[-1][0].of if visits else 0)
        self.names = names

    def returned(self, number: int, func: Any, args: tuple[Any, ...], result: Any, results: list[Tensor]) -> Any:
        if self.names and name_of(func) not in self.names[number : number + 1]:
            raise other_code(f"{name_of(func)} as call {number}", f"{(*self.names, 'none')[: number + 1][-1]}")
        for site, visit in self.by_number.get(number, ()):
            name = name_of(func)
            if name != site.name or len(results) <= site.result:
                raise other_code(f"{name} as call {number}", site.label)
            old = results[site.result]
            put = _visited(old, visit, args[0] if works_in_place(name) and args else None)
            if not (works_in_place(name) and args):
                result = swap(result, old, put)
            results[site.result] = put
        return result

    def refuse_other_code(self) -> None:
        """Refuse a whole pass that made other calls than the one in which the sites were found."""
        if self.number != self.of:
            raise other_code(f"{self.number} calls", f"{self.of}")


def _visited(old: Tensor, visit: Visit, written: Tensor | None) -> Tensor:
    """What the model goes on with; a call in place has it in the tensor that it writes into."""
    outer, _VISITED.now = _VISITED.now, True
    try:
        seen = old.clone()
        with torch._C.DisableTorchFunction():
            new = visit(seen)
        put = (seen if new is None else new).clone()
        if written is not None:
            written.copy_(put)
        return put
    finally:
        _VISITED.now = outer


class _Visited(local):
    """Whether a value is visited in this thread now."""

    now = False


_VISITED = _Visited()


class Entered:
    """A mode that is entered at once, until it is removed."""

    def __init__(self, mode: Mode) -> None:
        self._stack = ExitStack()
        self._stack.enter_context(mode)

    def remove(self) -> None:
        """Leave the mode."""
        self._stack.close()


def other_code(got: str, wanted: str) -> TraceError:
    return TraceError(
        "A model that makes the same torch calls in every pass over inputs of one shape.",
        f"{got}, in the place of {wanted}",
        "one sample at a time, and copy.deepcopy(model), whose blocks are found anew, for those of another kind.",
    )
