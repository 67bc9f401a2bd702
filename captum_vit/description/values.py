"""The values of one pass: tensors at one moment, the torch calls that made them, and the module calls around these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

# Calls whose result holds the numbers of their first tensor in another shape or type, where it has as many of them.
RESHAPE = {
    "view", "reshape", "permute", "transpose", "contiguous", "flatten", "unflatten", "squeeze", "unsqueeze", "expand",
    "swapaxes", "swapdims", "movedim", "moveaxis", "T", "mT", "t", "adjoint", "data", "view_as", "reshape_as",
    "expand_as", "narrow", "select", "chunk", "split", "tensor_split", "unbind", "to", "float", "half", "bfloat16",
    "double", "type", "type_as", "clone", "detach", "alias", "dropout", "__getitem__",
}  # fmt: skip
PROJECT = {
    "linear", "linear_dynamic", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "conv1d", "conv2d", "__matmul__",
    "__rmatmul__", "tensordot",
}  # fmt: skip
ADD = {"add", "__add__", "__radd__", "__iadd__", "add_", "addcmul"}
TIMES = {"mul", "__mul__", "__rmul__", "__imul__", "mul_", "addcmul"}
FACTOR = TIMES | {"div", "__truediv__", "div_"}
# Calls that tell Python's code what numbers a tensor holds.
DECIDE = {
    "__bool__", "item", "__float__", "__int__", "__index__", "__complex__", "tolist", "numpy", "equal", "allclose",
    "is_nonzero", "__contains__",
}  # fmt: skip


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
        """Whether it is the other value, or was made from it by nothing but changes of shape."""
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
    """A call of a module: the torch calls from ``start`` to before ``end``, and the tensors that it takes and gives.

    ``given`` is the first tensor before hooks of the user change it; what it takes and gives is behind them.
    """

    __slots__ = ("end", "given", "gives", "module", "nth", "parent", "start", "takes")

    def __init__(self, module: nn.Module, nth: int, start: int, takes: list[Value], parent: Call | None) -> None:
        self.module, self.nth, self.start, self.takes, self.parent = module, nth, start, takes, parent
        self.end = start
        self.gives: list[Value] = []
        self.given: Value | None = takes[0] if takes else None

    def holds(self, op: Op) -> bool:
        """Whether a torch call is made inside."""
        return self.start <= op.index < self.end
