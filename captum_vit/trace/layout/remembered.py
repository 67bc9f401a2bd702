"""The layout of a model's tokens for inputs of one shape, remembered as long as the model stays as it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError, UnsupportedModelError
from captum_vit.models.modules import modules_of
from captum_vit.models.per_sample import is_of_each_sample
from captum_vit.models.transformer import Addition
from captum_vit.sites.site import Place, Site, ThisThreadOnly
from captum_vit.trace.layout.embedding import Embedding
from captum_vit.trace.layout.layout import Layout, measured

DEPTH = 3  # of objects inside of objects that are looked at
LISTED = 4096  # numbers of an argument for the whole batch that are compared
SHAPES = 64  # of a model's inputs that are remembered, texts of another length among them


def layout_for(
    model: nn.Module,
    entrance: Place,
    blocks: Iterable[nn.Module],
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
    real: Tensor | None = None,  # shape: (T,), words that are no padding; None: all
    additions: tuple[Addition, ...] = (),
) -> Layout:
    """Where the tokens of these inputs lie: measured for the first sample, or remembered of inputs of its shape.

    It is remembered as long as the modules that ran before the blocks are the same objects, with the same hooks,
    parameters, buffers and attributes. Call it inside ``undisturbed``, while nothing is replaced in the model.

    Raises:
        InputError: masks that hide other patches of one picture than of another.
    """
    first, *others = (
        _layout_of_first(model, entrance, blocks, _from(row, inputs, inputs), _from(row, args, inputs), real, additions)
        for row in _rows_masked_apart(inputs, args)
    )
    if any(other != first for other in others):
        raise InputError(
            "Pictures of which masks hide the same patches.", "masks that hide others", "one of these at a time."
        )
    return first


def _rows_masked_apart(inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> list[int]:
    """Of pictures, the first with each of the masks; else the first of all."""
    batch = len(inputs[0])
    masks = [x for x in (*inputs[1:], *args) if is_of_each_sample(x, batch)]
    if not masks or not inputs[0].is_floating_point():
        return [0]
    rows: dict[Any, int] = {}
    for row in range(batch):
        rows.setdefault(tuple(_hidden(x[row]) for x in masks), row)
    return list(rows.values())


def _from(row: int, given: tuple[Any, ...], inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """With this sample as the first."""
    if row == 0:
        return given
    return tuple(x.roll(-row, 0) if is_of_each_sample(x, len(inputs[0])) else x for x in given)


def _layout_of_first(
    model: nn.Module,
    entrance: Place,
    blocks: Iterable[nn.Module],
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
    real: Tensor | None,
    additions: tuple[Addition, ...],
) -> Layout:
    key = _key(entrance, inputs, args)
    known = _KNOWN.setdefault(model, {})
    if key not in known or not all(state.holds() for state in known[key][1]):
        embedding = Embedding(model, entrance, inputs, args, additions=additions)
        plain, ran = _first_run(embedding, entrance, blocks)
        known.pop(key, None)
        known[key] = _measured(embedding, plain, real), _states(model, ran)
        if len(known) > SHAPES:
            del known[next(iter(known))]
    found = known[key][0]
    if isinstance(found, UnsupportedModelError):
        raise copy(found)
    return found


def _measured(embedding: Embedding, plain: Tensor, real: Tensor | None) -> Layout | UnsupportedModelError:
    """The layout, or why there is none, without the pass in which that showed."""
    try:
        return measured(embedding, plain, real)
    except UnsupportedModelError as error:
        return copy(error)


@dataclass(frozen=True)
class _State:
    """A module at its place in another one, as it was."""

    holder: Any  # a weak reference, as the module
    module: Any
    name: str
    then: tuple[Any, ...]

    def holds(self) -> bool:
        """Whether it is there still, and as it was."""
        holder, module = self.holder(), self.module()
        at_place = module is not None and holder is not None and holder._modules.get(self.name, holder) is module
        return at_place and _state(module) == self.then


def _as_it_is(holder: nn.Module, name: str, module: nn.Module) -> _State:
    return _State(ref(holder), ref(module), name, _state(module))


_PLAIN = {int, bool, float, str, type(None)}


def _state(module: nn.Module) -> tuple[Any, ...]:
    """Its hooks, a forward of its own, its parameters and buffers, and its attributes."""
    own = vars(module)
    held = [*module._parameters.values(), *module._buffers.values()]
    return (
        [*_of_users(module._forward_hooks), None, *_of_users(module._forward_pre_hooks)],
        [(id(x), x.is_inference() or x._version) for x in held if x is not None],
        _values({name: x for name, x in own.items() if name not in _OF_EVERY_MODULE}, DEPTH),
    )


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def _of_users(hooks: dict[int, Any]) -> list[int]:
    """Hooks but for those of this package, which come and go."""
    return [number for number, hook in hooks.items() if not isinstance(hook, ThisThreadOnly)] if hooks else []


def _value(x: Any, depth: int = DEPTH) -> Any:
    """What tells whether it has changed: numbers and texts, lists of them, and what other objects hold of them."""
    if type(x) in _PLAIN:
        return x
    if isinstance(x, Tensor):
        return id(x), x.is_inference() or x._version
    if isinstance(x, tuple | list | set | frozenset | range) and depth:
        return type(x), [one if type(one) in _PLAIN else _value(one, depth - 1) for one in x]
    if isinstance(x, nn.Module | type | Enum) or not depth:
        return id(x)
    return id(x), _values(x if isinstance(x, dict) else getattr(x, "__dict__", {}), depth - 1)


def _values(parts: dict[Any, Any], depth: int) -> dict[Any, Any]:
    return {name: x if type(x) in _PLAIN else _value(x, depth) for name, x in parts.items()}


_KNOWN: WeakKeyDictionary[nn.Module, dict[Any, tuple[Layout | UnsupportedModelError, Sequence[_State]]]] = (
    WeakKeyDictionary()
)


def _key(entrance: Place, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call may differ in, but for the numbers in tensors of each sample that are no masks."""
    batch, pictured = len(inputs[0]), inputs[0].is_floating_point()

    def kind(x: Any) -> Any:
        if is_of_each_sample(x, batch):
            return tuple(x.shape[1:]), x.is_floating_point(), _hidden(x[0]) if pictured and x is not inputs[0] else None
        if isinstance(x, Tensor):
            return tuple(x.shape), x.dtype, x.numel() <= LISTED and tuple(x.flatten().tolist())
        return _hashed(_value(x))

    where = (id(entrance.module), entrance.side, entrance.nth) if isinstance(entrance, Site) else entrance
    return (where, *map(kind, (*inputs, *args)))


def _hidden(x: Tensor) -> bytes | None:
    """Of a mask that hides something, all that it says: patches of which nothing is read have no token."""
    is_mask = bool(((x == 0) | (x == 1)).all()) and not bool(x.all())
    return bytes(x.bool().flatten().to("cpu", torch.uint8).tolist()) if is_mask else None


def _hashed(x: Any) -> Any:
    if isinstance(x, dict):
        return tuple((name, _hashed(one)) for name, one in x.items())
    return tuple(map(_hashed, x)) if isinstance(x, tuple | list) else x


def _first_run(embedding: Embedding, entrance: Place, blocks: Iterable[nn.Module]) -> tuple[Tensor, set[nn.Module]]:
    """The sample's tokens, and the modules that run before the first block, or are it."""
    ran = {entrance.module} if isinstance(entrance, Site) else set()
    note = ThisThreadOnly(lambda module, args: ran.add(module))
    handles = [m.register_forward_pre_hook(note) for m in modules_of(embedding.model, without=blocks)]
    try:
        return embedding.tokens(embedding.sample), ran
    finally:
        for handle in handles:
            handle.remove()


def _states(model: nn.Module, ran: set[nn.Module]) -> list[_State]:
    held = ((holder, name, child) for holder in modules_of(model) for name, child in holder._modules.items())
    return [_as_it_is(model, "", model)] + [_as_it_is(h, name, m) for h, name, m in held if m is not None and m in ran]
