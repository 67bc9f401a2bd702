"""The values of one pass as a graph: which torch call made each, from which others, inside which module calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.models.modules import modules_of
from captum_vit.sites.calls import Calls, name_of, works_in_place
from captum_vit.sites.hooks import mine
from captum_vit.sites.nests import tensors_in

# Calls whose result holds the numbers of their first tensor in another shape or type, where it has as many of them.
RESHAPE = {
    *"view reshape permute transpose contiguous flatten unflatten squeeze unsqueeze expand swapaxes swapdims".split(),
    *"movedim moveaxis T mT t adjoint data view_as reshape_as expand_as narrow select chunk split tensor_split".split(),
    *"unbind to float half bfloat16 double type type_as clone detach alias dropout __getitem__".split(),
}
PROJECT = {*"linear matmul mm bmm addmm baddbmm einsum conv1d conv2d __matmul__ __rmatmul__ tensordot".split()}
ADD = {*"add __add__ __radd__ __iadd__ add_ addcmul".split()}


class Value:
    """A tensor at one moment of a pass; changed in place, it is another value.

    ``past`` has a bit for every value that it was made from, and its own. ``root`` is the first value that holds the
    same numbers, of which this one is another shape.
    """

    __slots__ = ("number", "op", "past", "result", "root", "same", "tensor", "users")

    def __init__(self, number: int, tensor: Tensor, op: Op | None = None, result: int | None = None) -> None:
        self.number, self.tensor, self.op, self.result = number, tensor, op, result
        self.users: list[Op] = []
        self.past = 1 << number
        for taken in op.takes if op else ():
            self.past |= taken.past
        self.root: Value = self
        self.same: list[Value] = [self]  # of a root: itself and its other shapes

    def made_from(self, other: Value) -> bool:
        """Whether the other one took part in making it; a value counts as made from itself."""
        return bool(self.past >> other.number & 1)

    def has_numbers_of(self, other: Value) -> bool:
        """Whether only changes of shape lie between them."""
        return self.root is other.root

    def also(self, root: Value) -> None:
        """It holds the same numbers as another one."""
        self.root = root
        root.same.append(self)

    def readers(self) -> Iterator[tuple[Value, Op]]:
        """The calls that use its numbers for more than another shape, each with the shape that it takes."""
        for value in self.root.same:
            for op in value.users:
                if not any(made.root is self.root for made in op.makes):
                    yield value, op

    def comes_by(self, other: Value) -> bool:
        """Whether it is the other value, or was made from it by changes of shape alone."""
        value = self
        while value is not other:
            before = value.op.takes[0] if value.op and value.op.takes else None
            if before is None or before.root is not self.root:
                return False
            value = before
        return True


class Op:
    """A torch call: ``index`` among all of the pass, ``number`` among those that :class:`Calls` counts."""

    __slots__ = ("args", "index", "kwargs", "makes", "name", "number", "takes")

    def __init__(
        self, index: int, name: str, takes: list[Value], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.index, self.name, self.takes, self.args, self.kwargs = index, name, takes, args, kwargs
        self.number: int | None = None
        self.makes: list[Value] = []


class Call:
    """A call of a module: the torch calls from ``start`` to before ``end``, and the tensors that it takes and gives."""

    __slots__ = ("end", "gives", "module", "nth", "parent", "start", "takes")

    def __init__(self, module: nn.Module, nth: int, start: int, takes: list[Value], parent: Call | None) -> None:
        self.module, self.nth, self.start, self.takes, self.parent = module, nth, start, takes, parent
        self.end = start
        self.gives: list[Value] = []

    def holds(self, op: Op) -> bool:
        """Whether a torch call is made inside."""
        return self.start <= op.index < self.end


class Graph(Calls):
    """The values, torch calls and module calls of one pass. It holds every tensor: let it go when it has been read."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Value] = []
        self.ops: list[Op] = []
        self.calls: list[Call] = []
        self.sources = 0  # a bit for every tensor that the model was given
        self._open: list[Call] = []
        self._times: dict[nn.Module, int] = {}
        self._now: dict[int, Value] = {}  # by the identity of a tensor, what it holds now
        self._held: list[Tensor] = []  # so that identities stay
        self._on: dict[int, list[Tensor]] = {}  # by its storage, the tensors that a change in place would change

    def run(self, model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Any:
        """The pass; the model's output."""
        for tensor in tensors_in((inputs, args)):
            self.sources |= 1 << self.value_of(tensor).number
        with self._calls_noted(model), self:
            return model(*inputs, *args)

    def times(self, module: nn.Module) -> int:
        """How often a module was called."""
        return self._times.get(module, 0)

    def depends(self, value: Value) -> bool:
        """Whether it was made from the inputs."""
        return bool(value.past & self.sources)

    def value_of(self, tensor: Tensor) -> Value:
        """What a tensor holds now."""
        known = self._now.get(id(tensor))
        return self._made(tensor) if known is None else known

    def called(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = name_of(func)
        if name == "__get__":
            name = name_of(func.__self__)
        taken = tensors_in((args, kwargs))
        target = _written(name, taken, kwargs)
        before = [] if target is None else self._copied(target)
        number = self.number
        result = super().called(func, args, kwargs)
        results = tensors_in(result)
        if not results and target is None:
            return result
        op = Op(len(self.ops), name, [self.value_of(t) for t in taken], args, kwargs)
        op.number = number if results else None
        given = {id(t) for t in taken}
        new = [(k, t) for k, t in enumerate(results) if id(t) not in given or t is target]
        if target is not None and not any(t is target for _, t in new):
            new.append((None, target))
        if new:
            self._note(op, new, target, before)
        return result

    def _note(self, op: Op, new: list[Any], target: Tensor | None, before: list[tuple[Tensor, Value]]) -> None:
        self.ops.append(op)
        sharing = [(tensor, old) for tensor, old in before if tensor is not target]
        op.takes += [old for _, old in sharing]
        for value in dict.fromkeys(op.takes):
            value.users.append(op)
        for result, tensor in new:
            value = self._made(tensor, op, result)
            op.makes.append(value)
            first = op.takes[0] if op.takes else None
            if target is None and first is not None and _reshapes(op, first, value):
                value.also(first.root)
        if target is not None:
            written = self._now[id(target)]
            for tensor, _ in sharing:
                value = self._made(tensor, op)
                op.makes.append(value)
                if tensor.numel() == target.numel():
                    value.also(written)

    def _made(self, tensor: Tensor, op: Op | None = None, result: int | None = None) -> Value:
        value = Value(len(self.values), tensor, op, result)
        self.values.append(value)
        if id(tensor) not in self._now:
            self._held.append(tensor)
            if (storage := _storage(tensor)) is not None:
                self._on.setdefault(storage, []).append(tensor)
        self._now[id(tensor)] = value
        return value

    def _copied(self, target: Tensor) -> list[tuple[Tensor, Value]]:
        """What the tensors that share memory with one hold, before it is written into."""
        self.value_of(target)
        storage = _storage(target)
        sharing = [target] if storage is None else self._on[storage]
        for tensor in sharing:
            self._now[id(tensor)].tensor = tensor.clone()
        return [(tensor, self._now[id(tensor)]) for tensor in sharing]

    @contextmanager
    def _calls_noted(self, model: nn.Module) -> Iterator[None]:
        handles = []
        for module in modules_of(model):
            handles.append(module.register_forward_pre_hook(mine(self._enters), with_kwargs=True))
            handles.append(module.register_forward_hook(mine(self._leaves)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enters(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        nth = self._times[module] = self._times.get(module, 0) + 1
        takes = [self.value_of(t) for t in tensors_in((args, kwargs))]
        call = Call(module, nth - 1, len(self.ops), takes, self._open[-1] if self._open else None)
        self.calls.append(call)
        self._open.append(call)

    def _leaves(self, module: nn.Module, args: Any, output: Any) -> None:
        while self._open and (call := self._open.pop()).module is not module:
            pass
        call.end = len(self.ops)
        call.gives = [self.value_of(t) for t in tensors_in(output)]


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
    return op.name != "__getitem__" or not _picks(op.args[1])


def _picks(index: Any) -> bool:
    """Whether an index may bring rows into another order."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor | list) for part in parts)
