"""One pass as a graph of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from captum_vit.description.values import DECIDE, RESHAPE, Call, Op, Value
from captum_vit.errors import TraceError
from captum_vit.models.modules import modules_of
from captum_vit.models.output import scores_of
from captum_vit.sites.calls import Calls, name_of, works_in_place
from captum_vit.sites.nests import tensors_in
from captum_vit.sites.site import ThisThreadOnly


def _held_by(owner: ref[nn.Module], name: str) -> Tensor:
    """A parameter or buffer as its module holds it now."""
    module = owner()
    assert module is not None  # a part of the model that is explained
    tensor: Tensor = getattr(module, name)
    return tensor


class Graph(Calls):
    """The values, torch calls and module calls of one pass. It holds every tensor: let it go when it has been read."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Value] = []
        self.ops: list[Op] = []
        self.calls: list[Call] = []
        self.sources = 0  # a bit for every tensor that the model was given
        self.names: list[str] = []  # of the calls that are numbered
        self.decides = False  # the model's code asks for numbers that were computed from the inputs, not ids and masks
        self._computed = 0  # a bit for every such number
        self.taking: dict[
            Value, list[Call]
        ] = {}  # by the root of its first tensor, the calls that take it, outer ones first
        self.giving: dict[Value, list[Call]] = {}
        self._open: list[Call] = []
        self._given: dict[nn.Module, Value] = {}  # to a module that is about to run, before hooks of the user
        self._times: dict[nn.Module, int] = {}
        self._owners: dict[int, tuple[nn.Module, str]] = {}
        self._now: dict[int, Value] = {}  # by the identity of a tensor, what it holds now
        self._held: list[Tensor] = []  # so that identities stay
        self._on: dict[int, list[Tensor]] = {}  # by its storage, the tensors that a change in place would change
        self.outputs: list[Value] = []  # the scores of the model

    def run(self, model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Any:
        """The pass; the model's output."""
        for tensor in tensors_in((inputs, args)):
            self.sources |= 1 << self.value_of(tensor).number
        with self._calls_noted(model), self:
            output = model(*inputs, *args)
            self.outputs = [self.value_of(tensor) for tensor in _scores(output)]
            return output

    def release(self) -> None:
        """Let every tensor go at once: values and calls refer to each other, and Python would keep them for a while."""
        for value in self.values:
            del value.tensor
        for op in self.ops:
            op.args, op.kwargs = (), {}
        for held in (self._held, self._now, self._on):
            held.clear()

    def times(self, module: nn.Module) -> int:
        """How often a module was called."""
        return self._times.get(module, 0)

    def owner(self, tensor: Tensor) -> nn.Module | None:
        """The module that a parameter or buffer belongs to."""
        owner, _ = self._owners.get(id(tensor), (None, ""))
        return owner

    def own(self, tensor: Tensor) -> Callable[[], Tensor] | None:
        """What gives a parameter or buffer as the model holds it then."""
        owner, name = self._owners.get(id(tensor), (None, ""))
        return None if owner is None else partial(_held_by, ref(owner), name)  # what is remembered keeps no model

    def depends(self, value: Value) -> bool:
        """Whether it was made from the inputs."""
        return bool(value.past & self.sources)

    def value_of(self, tensor: Tensor) -> Value:
        """What a tensor holds now."""
        known = self._now.get(id(tensor))
        return self._made(tensor) if known is None else known

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = name_of(func)
        taken = tensors_in((args, kwargs))
        target = _written(name, taken, kwargs)
        sharing = [] if target is None else self._copied(target)
        number = self.number
        result = super().call(func, args, kwargs)
        results = tensors_in(result)
        if name in DECIDE:
            self.decides = self.decides or any(self.value_of(t).past & self._computed for t in taken)
        given = {id(t) for t in taken if t is not target}
        new: list[tuple[int | None, Tensor]] = [(k, t) for k, t in enumerate(results) if id(t) not in given]
        if target is not None and all(t is not target for _, t in new):
            new.append((None, target))
        if new:
            op = Op(len(self.ops), name, [self.value_of(t) for t in taken], args, kwargs)
            op.number = number if results else None
            self._note(op, new, target, sharing)
        return result

    def returned(self, number: int, func: Any, args: tuple[Any, ...], result: Any, results: list[Tensor]) -> Any:
        self.names.append(name_of(func))
        return result

    def _note(self, op: Op, new: list[tuple[int | None, Tensor]], target: Tensor | None, sharing: list[Tensor]) -> None:
        """A call and what it made; tensors that share memory with what it wrote into hold something else too."""
        self.ops.append(op)
        first = op.takes[0] if op.takes else None
        op.takes += [self.value_of(t) for t in sharing]
        for value in dict.fromkeys(op.takes):
            value.users.append(op)
        for result, tensor in new:
            value = self._made(tensor, op, result)
            op.makes.append(value)
            if target is None and first is not None and _reshapes(op, first, value):
                value.also(first.root)
        for tensor in sharing:
            value = self._made(tensor, op)
            op.makes.append(value)
            if target is not None and tensor.numel() == target.numel():
                value.also(self.value_of(target))

    def _made(self, tensor: Tensor, op: Op | None = None, result: int | None = None) -> Value:
        value = Value(len(self.values), tensor, op, result)
        self.values.append(value)
        if tensor.is_floating_point() and self.depends(value):
            self._computed |= 1 << value.number
        if id(tensor) not in self._now:
            self._held.append(tensor)
            if (storage := _storage(tensor)) is not None:
                self._on.setdefault(storage, []).append(tensor)
        self._now[id(tensor)] = value
        return value

    def _copied(self, target: Tensor) -> list[Tensor]:
        """The other tensors in the memory of one that is written into; the values of all go on with copies."""
        self.value_of(target)
        storage = _storage(target)
        sharing = [target] if storage is None else self._on[storage]
        for tensor in sharing:
            self.value_of(tensor).tensor = tensor.clone()
        return [tensor for tensor in sharing if tensor is not target]

    @contextmanager
    def _calls_noted(self, model: nn.Module) -> Iterator[None]:
        handles = []
        for module in modules_of(model):
            for name, own in (*module._parameters.items(), *module._buffers.items()):
                self._owners.setdefault(id(own), (module, name))
            if module._forward_pre_hooks:
                first = ThisThreadOnly(self._is_given)
                handles.append(module.register_forward_pre_hook(first, with_kwargs=True, prepend=True))
            handles.append(module.register_forward_pre_hook(ThisThreadOnly(self._enters), with_kwargs=True))
            handles.append(module.register_forward_hook(ThisThreadOnly(self._leaves)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _is_given(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        for tensor in tensors_in((args, kwargs))[:1]:
            self._given[module] = self.value_of(tensor)

    def _enters(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        nth = self._times[module] = self._times.get(module, 0) + 1
        takes = [self.value_of(t) for t in tensors_in((args, kwargs))]
        call = Call(module, nth - 1, len(self.ops), takes, self._open[-1] if self._open else None)
        self.calls.append(call)
        self._open.append(call)
        if takes:
            self.taking.setdefault(takes[0].root, []).append(call)
            call.given = self._given.pop(module, takes[0])

    def _leaves(self, module: nn.Module, args: Any, output: Any) -> None:
        while self._open and (call := self._open.pop()).module is not module:
            pass
        call.end = len(self.ops)
        call.gives = [self.value_of(t) for t in tensors_in(output)]
        if call.gives:
            self.giving.setdefault(call.gives[0].root, []).append(call)


def recorded(model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Graph:
    """The graph of one pass."""
    graph = Graph()
    try:
        graph.run(model, inputs, args)
    except BaseException:
        graph.release()
        raise
    return graph


def _scores(output: Any) -> list[Tensor]:
    """The scores in what a model returns; none where a method would refuse it."""
    try:
        return [scores_of(output)]
    except TraceError:
        return []


def _written(name: str, taken: list[Tensor], kwargs: dict[str, Any]) -> Tensor | None:
    """The tensor that a call writes into."""
    if isinstance(kwargs.get("out"), Tensor):
        return kwargs["out"]
    return taken[0] if taken and (works_in_place(name) or kwargs.get("inplace") is True) else None


def _storage(tensor: Tensor) -> int | None:
    """The memory that a tensor lies in, where it has some of its own kind."""
    if tensor.layout is not torch.strided or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return None
    return tensor.untyped_storage().data_ptr() or None


def _reshapes(op: Op, first: Value, made: Value) -> bool:
    if op.name not in RESHAPE or made.tensor.numel() != first.tensor.numel():
        return False
    return op.name != "__getitem__" or not picks(op.args[1])


def picks(index: Any) -> bool:
    """Whether an index may bring rows into another order."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor | list) for part in parts)
