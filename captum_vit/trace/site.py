"""A site: one place in a network where a tensor can be read, or replaced, while the model runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from threading import get_ident
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Visit = Callable[[Tensor], Tensor | None]
"""Sees the tensor at a site; returns another one to put in its place, or None to leave it."""


_NUMBERS = count()


def next_number() -> int:
    """Later ones are larger."""
    return next(_NUMBERS)


class Mine:
    """A function for the passes of this thread: another one may use the model in the meantime, and sees nothing."""

    def __init__(self, function: Callable[..., Any], otherwise: Callable[..., Any] | None = None) -> None:
        self.function, self.otherwise = function, otherwise
        self.thread, self.number = get_ident(), next_number()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if get_ident() == self.thread:
            return self.function(*args, **kwargs)
        return None if self.otherwise is None else self.otherwise(*args, **kwargs)


def mine(hook: Callable[..., Any]) -> Mine:
    """A hook of this thread."""
    return Mine(hook)


class Forward(Mine):
    """A function in the place of a module's forward, until it is removed."""

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__(forward, otherwise=module.forward)
        self.module, self.own = module, vars(module).get("forward")
        vars(module)["forward"] = self

    def remove(self) -> None:
        """The forward of before; nothing, if this one is no longer there."""
        if vars(self.module).get("forward") is not self:
            return
        if self.own is None:
            vars(self.module).pop("forward")
        else:
            vars(self.module)["forward"] = self.own


@dataclass(frozen=True)
class Site:
    """The first tensor that enters a module, or the first that leaves it.

    Keyword-only inputs, and outputs such as ``(tensor, None)``, are understood. Where a module is given
    the same tensor several times (query, key and value), all are replaced together.
    """

    module: nn.Module
    side: Literal["input", "output"]

    def hook(self, visit: Visit, *, first: bool = False) -> RemovableHandle:
        """Call ``visit`` at this site on every pass until the handle is removed.

        ``first`` visits before the hooks that are already there.
        """
        if self.side == "output":

            def after(module: nn.Module, args: Any, output: Any) -> Any:
                old = first_tensor(output)
                new = None if old is None else visit(old)
                return None if old is None or new is None else swap(output, old, new)

            return self.module.register_forward_hook(mine(after), prepend=first)

        def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
            old = first_tensor((args, kwargs))
            new = None if old is None else visit(old)
            return None if old is None or new is None else (swap(args, old, new), swap(kwargs, old, new))

        return self.module.register_forward_pre_hook(mine(before), with_kwargs=True, prepend=first)


def first_tensor(tree: Any) -> Tensor | None:
    """The first tensor in nested tuples, lists and dicts."""
    if isinstance(tree, Tensor):
        return tree
    items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, tuple | list) else ()
    return next((t for t in map(first_tensor, items) if t is not None), None)


def holds_tensor(tree: Any) -> bool:
    """Whether a nest holds a tensor, or an object with one among its attributes, such as a mask of blocks."""
    if first_tensor(tree) is not None:
        return True
    if isinstance(tree, dict | tuple | list):
        return any(map(holds_tensor, tree.values() if isinstance(tree, dict) else tree))
    return any(isinstance(value, Tensor) for value in getattr(tree, "__dict__", {}).values())


def swap(tree: Any, old: Tensor, new: Tensor) -> Any:
    """The same nest with one tensor replaced wherever it occurs; other objects are kept as they are."""
    if tree is old:
        return new
    if isinstance(tree, dict):
        values = {k: swap(v, old, new) for k, v in tree.items()}
        return values if type(tree) is dict else type(tree)(**values)
    if type(tree) in (tuple, list):
        return type(tree)(swap(item, old, new) for item in tree)
    return tree
