"""What ran in a block in which no attention was seen: found by one more pass, so that a refusal can name it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_vit.sites.calls import called_by, name_of
from captum_vit.sites.einsums import PAIRED
from captum_vit.sites.mode import Mode
from captum_vit.trace.modes.attention_weights import SOFTMAX, begins, carried, follow, marked
from captum_vit.trace.modes.functions import is_in_place
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.watch import Watch

KERNEL_WORDS = ("attention", "attn", "flash")


def what_ran(call: Pass, layer: int) -> str:
    """In words, what stands between the softmax and the values of a block, or what runs in the place of a softmax."""
    mode, watch, blocks = _Follower(), Watch(call), call.transformer.blocks
    watch.at(blocks[layer].entrance, lambda x: mode.listen(True))
    watch.at(blocks[layer].out, lambda x: mode.listen(False))
    with torch.no_grad():
        watch.run(mode)
    if mode.between:
        return f"{' and '.join(list(dict.fromkeys(mode.between))[:2])} between the softmax and the values"
    if mode.kernels:
        return f"{', '.join(dict.fromkeys(mode.kernels))} in its place"
    return "a softmax that no product follows" if mode.softmaxes else "no softmax over tokens"


class _Follower(Mode):
    """Follows the weights of every softmax to the first call that makes something else of them."""

    def __init__(self) -> None:
        super().__init__()
        self.active = False
        self.softmaxes = 0
        self.between: list[str] = []
        self.kernels: list[str] = []

    def listen(self, active: bool) -> None:
        self.active = active

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = name_of(func)
        weights = marked(args, kwargs)
        result = func(*args, **kwargs) if weights is None else follow(weights, func, args, kwargs)
        if func in SOFTMAX and begins(args, kwargs, result):
            self.softmaxes += 1
        elif weights is not None and self._lost(func, args, result):
            over = " over other axes than one of keys" if name in PAIRED else ""
            self.between.append(f"{name}{over} ({called_by()})")
        elif any(word in name for word in KERNEL_WORDS):
            self.kernels.append(f"{name} ({called_by()})")
        return result

    def _lost(self, func: Any, args: tuple[Any, ...], result: Any) -> bool:
        """Whether a call on weights made, or left, a tensor that holds them no longer."""
        if is_in_place(func):
            return carried(args[0]) is None
        return carried(result) is None and any(isinstance(x, Tensor) for x in _flat(result))


def _flat(tree: Any) -> list[Any]:
    """What lies in nested tuples and lists."""
    return [x for item in tree for x in _flat(item)] if isinstance(tree, tuple | list) else [tree]
