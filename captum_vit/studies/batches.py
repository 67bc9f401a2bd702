"""One batch or many: what a study runs over, with the targets and further arguments that go with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from captum_vit.attr.base import forward_args
from captum_vit.errors import InputError


class Batch(NamedTuple):
    """Inputs, as ``attribute`` takes them, and what belongs to them."""

    inputs: Tensor
    targets: Any = None
    args: tuple[Any, ...] = ()


Batches = Tensor | tuple[Any, ...] | list[Any] | Iterable[Any]
"""Only images or token ids; ``(inputs, targets)`` or ``(inputs, targets, additional_forward_args)``; or an
iterable of any of these, a ``DataLoader`` for instance."""


def batches_of(data: Batches) -> Iterator[Batch]:
    """One batch after the other.

    A tuple or list of inputs and their targets is one batch; any other iterable holds batches.

    Raises:
        InputError: nothing that holds a batch.
    """
    if _is_batch(data):
        yield _batch(data)
        return
    if isinstance(data, str | bytes | dict) or not isinstance(data, Iterable):
        raise InputError(
            "A batch, (inputs, targets), or an iterable of these.",
            type(data).__name__,
            "(images, labels), or a DataLoader that gives such pairs.",
        )
    empty = True
    for part in data:
        if not _is_batch(part):
            raise InputError("Batches: inputs, or (inputs, targets).", type(part).__name__, "(images, labels)")
        empty = False
        yield _batch(part)
    if empty:
        raise InputError("At least one batch.", "none", "a list rather than an iterator that is used up.")


def _is_batch(data: Any) -> bool:
    if isinstance(data, Tensor):
        return True
    if not isinstance(data, tuple | list) or not data or not isinstance(data[0], Tensor):
        return False
    second = data[1] if len(data) > 1 else None
    return not (isinstance(second, Tensor) and second.dim() > 1)  # such are no targets: more inputs


def _batch(data: Any) -> Batch:
    if isinstance(data, Tensor):
        return Batch(data)
    if len(data) > 3:
        hint = "further arguments together, as one tuple."
        raise InputError("(inputs, targets, additional_forward_args) at most.", f"{len(data)} items", hint)
    inputs, targets, args = (*data, None, None)[:3]
    return Batch(inputs, targets, forward_args(args))
