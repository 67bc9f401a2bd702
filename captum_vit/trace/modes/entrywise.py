"""Functions of single entries: activations, however they are written.

A tensor each of whose entries depends on one entry of another, its origin, and on constants, carries that origin and
what it would be where the origin is zero. So ``0.5 * x * (1 + tanh(...))`` is known for a function of x, as
``F.gelu(x)`` is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_vit.trace.modes.functions import FILLED, NEGATED, VANISHING, WHERE, is_in_place

NO_TENSORS: frozenset[type] = frozenset(
    {int, float, bool, str, type(None), type(...), slice, torch.dtype, torch.Size, torch.device}
)
"""Types of arguments that hold no tensor."""
MARK = "_entrywise"
_CONSTANT = "_added_constant"


class Entrywise(NamedTuple):
    """What a tensor that carries this is."""

    of: Tensor | None
    """The origin; None where entries were moved since."""
    zero: float | Tensor
    """What it is where the origin is zero."""
    curved: bool
    """Whether an activation is among what made it: in a product it may be the gate."""


def mark(x: Tensor, of: Tensor | None, zero: float | Tensor, curved: bool) -> Tensor:
    """Let a tensor carry what it is; the origin only where shapes agree."""
    setattr(x, MARK, Entrywise(of if of is not None and of.shape == x.shape else None, zero, curved))
    return x


def carried(x: Tensor) -> Entrywise | None:
    """What a tensor carries."""
    found: Entrywise | None = getattr(x, MARK, None)
    return found


def entrywise(x: Tensor) -> tuple[Tensor, float | Tensor]:
    """Its origin, and what it is where that is zero; what carries none is a function of itself."""
    found = carried(x)
    return (x, 0.0) if found is None or found.of is None else (found.of, found.zero)


def curved(x: Tensor) -> bool:
    """Whether an activation made it, be its entries moved since."""
    found = carried(x)
    return found is not None and found.curved


def is_gate(x: Tensor) -> bool:
    """Whether an activation made it that is not zero at zero: a part of a sigmoid comes from no input."""
    found = carried(x)
    return found is not None and found.curved and not vanishes(found.zero)


def shifted(x: Tensor) -> bool:
    """Whether a number was added to a stream, and nothing else happened to it."""
    found = carried(x)
    return found is not None and found.of is not None and not found.curved and not vanishes(found.zero)


def vanishes(zero: float | Tensor) -> bool:
    """Whether it is zero everywhere."""
    return not zero.any() if isinstance(zero, Tensor) else zero == 0


def operands(tree: Any) -> list[Tensor]:
    """The tensors of a call that depend on the tokens, comparisons with them included."""
    if type(tree) in NO_TENSORS:
        return []
    if isinstance(tree, Tensor):
        depends = (tree.requires_grad and not isinstance(tree, nn.Parameter)) or hasattr(tree, MARK)
        return [tree] if depends else []
    return [found for x in tree for found in operands(x)] if isinstance(tree, tuple | list) else []


def common_origin(xs: list[Tensor]) -> Tensor | None:
    """The tensor of whose single entries all these are functions."""
    first = entrywise(xs[0])[0]
    return first if all(entrywise(x)[0] is first for x in xs[1:]) else None


def at_zero(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], of: Tensor) -> float | Tensor:
    """What a call gives where the origin is zero: a number, unless constants differ from entry to entry."""
    if func in VANISHING and vanishes(entrywise(args[0])[1]):
        return 0.0
    wide = torch.promote_types(of.dtype, torch.float32)

    def zero(x: Any) -> Any:
        if not operands(x):
            return x
        found = entrywise(x)[1]
        if isinstance(found, bool | Tensor):
            return torch.as_tensor(found, device=of.device)
        return torch.full(of.shape if func is torch.prelu else (), found, dtype=wide, device=of.device)

    with torch.no_grad():
        found: Tensor = func(*map(zero, args), **{name: zero(x) for name, x in kwargs.items()})
    return found.item() if found.dim() == 0 else found


def constant(tree: Any) -> Any:
    """Parameters, also those in lists, without a graph."""
    if type(tree) is Tensor or type(tree) in NO_TENSORS:  # nearly all: to find out what is an instance takes longer
        return tree
    if isinstance(tree, nn.Parameter):
        return tree.detach() if tree.requires_grad else tree
    if type(tree) is dict:
        return {name: constant(x) for name, x in tree.items()}
    return type(tree)(map(constant, tree)) if type(tree) in (tuple, list) else tree


def constants(args: tuple[Any, ...]) -> list[Any]:
    """The same of the arguments of a call."""
    return [x if type(x) is Tensor or type(x) in NO_TENSORS else constant(x) for x in args]


def detached(tree: Any, held: list[Tensor]) -> Any:
    """The same with some tensors as constants."""
    if isinstance(tree, Tensor):
        return tree.detach() if any(tree is x for x in held) else tree
    if type(tree) is dict:
        return {name: detached(x, held) for name, x in tree.items()}
    return type(tree)(detached(x, held) for x in tree) if type(tree) in (tuple, list) else tree


def adds(y: Tensor, what: Callable[[], float | Tensor]) -> Tensor:
    """Let a tensor carry a constant that was added to make it; made when it is asked for."""
    setattr(y, _CONSTANT, what)
    return y


def taken_constant(y: Tensor) -> Callable[[], float | Tensor] | None:
    """The constant that was added to make it, which it then carries no longer: each counts once."""
    found: Callable[[], float | Tensor] | None = y.__dict__.pop(_CONSTANT, None)
    return found


def summed(func: Any, streams: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A sum, difference or negative; a number stays with the origin, for products; a bias tensor is a new one."""
    y: Tensor = func(*args, **kwargs)
    activated = any(map(curved, streams))
    if len(streams) == 1 and func not in NEGATED:
        x = streams[0]
        without = tuple(x.new_zeros(()) if a is x else a for a in args)
        adds(y, lambda: func(*without, **kwargs))
        if any(isinstance(a, Tensor) and a.dim() > 0 for a in args if a is not x):
            return mark(y, None, 1.0, True) if activated else y
    origin = common_origin(streams)
    return y if origin is None else mark(y, origin, at_zero(func, args, kwargs, origin), activated)


def scaled(func: Any, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A stream times a constant, or divided by one."""
    y: Tensor = func(*args, **kwargs)
    found = carried(x)
    if found is None:
        return mark(y, x, 0.0, False)
    zero = found.zero if found.of is None or vanishes(found.zero) else at_zero(func, args, kwargs, found.of)
    return mark(y, found.of, zero, found.curved)


def moved(func: Any, streams: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Entries elsewhere; a gate stays one."""
    result = func(*args, **kwargs)
    gate = next((found for x in streams if curved(x) and (found := carried(x))), None)
    if is_in_place(func):
        unmark(args[0])
    for y in result if isinstance(result, tuple | list) else (result,):
        if gate and isinstance(y, Tensor) and y.requires_grad and not any(y is x for x in streams):
            mark(y, None, gate.zero, True)
    return result


def with_constants(
    y: Tensor, func: Any, streams: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """Let what was made of streams and constants, in a sum or side by side, carry what it is without the streams."""
    if not y.requires_grad or not _brings_constants(func, streams, args, kwargs):
        return y
    without, named = emptied((args, kwargs), streams)
    return adds(y, lambda: func(*without, **named))


def _brings_constants(func: Any, streams: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether anything but zeros comes in beside the streams."""
    if func in FILLED:
        value = kwargs.get("value", args[-1])
        return isinstance(value, Tensor | str) or value != 0
    given = (*args, *kwargs.values())
    parts = next((x for x in given if isinstance(x, tuple | list)), given)
    return func in WHERE or any(isinstance(x, Tensor) and all(x is not s for s in streams) for x in parts)


def emptied(tree: Any, streams: list[Tensor]) -> Any:
    """The same with zeros for streams."""
    if isinstance(tree, Tensor):
        return tree.new_zeros(()).expand(tree.shape) if any(tree is s and s.requires_grad for s in streams) else tree
    if type(tree) is dict:
        return {name: emptied(x, streams) for name, x in tree.items()}
    return type(tree)(emptied(x, streams) for x in tree) if type(tree) in (tuple, list) else tree


def unmark(x: Tensor) -> Tensor:
    """For a tensor that was written over."""
    for name in (MARK, _CONSTANT):
        if hasattr(x, name):
            delattr(x, name)
    return x


def copied(x: Tensor, alone: bool) -> Tensor:
    """A tensor before it is written over: beside functions of its entries it is one of them, alone an origin."""
    before, found = x.clone(), carried(x)
    if found is not None:
        return mark(before, *found)
    return before if alone else mark(before, x, 0.0, False)


def written_over(x: Tensor, y: Tensor) -> Tensor:
    """The first tensor with the value of the other, and what that carries."""
    x.copy_(y)
    unmark(x)
    if (found := carried(y)) is not None:
        mark(x, None if found.of is x else found.of, found.zero, found.curved)
    added = taken_constant(y)
    return x if added is None else adds(x, added)
