"""The most memory that a call needs at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """By how much the memory of tensors grows while a call runs, at most; what there was before does not count.

    On CUDA the allocator counts. Elsewhere the storages that operations make are counted for as long as they live, so
    what a kernel needs for itself is not seen, nor is what other threads make.
    """
    if device.type != "cuda":
        with Live() as live:
            call()
        return live.peak
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return torch.cuda.max_memory_allocated(device) - before


class Live(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, for as long as they live, and the most there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.peak = 0, 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        found = func(*args, **(kwargs or {}))
        for storage in (x.untyped_storage() for x in tree_leaves(found) if isinstance(x, Tensor)):
            if storage._cdata not in self.known | given:  # a view is no new memory
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return found

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
