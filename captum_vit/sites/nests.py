"""Tensors in nested tuples, lists and dicts: found, and replaced."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

SEQUENCES = (tuple, list)
ATOMS = {int, bool, float, str, type(None), torch.dtype, torch.device}


def first_tensor(tree: Any) -> Tensor | None:
    """The first tensor in nested tuples, lists and dicts."""
    if isinstance(tree, Tensor):
        return tree
    items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, tuple | list) else ()
    return next((t for t in map(first_tensor, items) if t is not None), None)


def tensors_in(tree: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists and dicts, in order."""
    found: list[Tensor] = []
    _collect((tree,), found)
    return found


def _collect(items: Iterable[Any], found: list[Tensor]) -> None:
    for item in items:
        kind = type(item)
        if kind is Tensor or (kind not in ATOMS and isinstance(item, Tensor)):
            found.append(item)
        elif kind in ATOMS:
            continue
        elif isinstance(item, SEQUENCES):
            _collect(item, found)
        elif isinstance(item, dict):
            _collect(item.values(), found)


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
