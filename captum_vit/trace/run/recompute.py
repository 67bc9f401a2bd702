"""Blocks that keep nothing for the backward pass, and run once more in it, under the same rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captum_vit.errors import UnsupportedModelError
from captum_vit.sites.nests import swap, tensors_in
from captum_vit.sites.site import Forward
from captum_vit.trace.modes.biases import BiasTap
from captum_vit.trace.modes.rules import under


@contextmanager
def recomputed(blocks: Iterable[nn.Module], rule: str, biases: bool = False) -> Iterator[None]:
    """Inside, blocks save what enters them, and nothing else; the backward pass runs each again.

    Args:
        blocks: modules, none within another.
        rule: under which they run.
        biases: a :class:`captum_vit.trace.modes.biases.BiasTap` watches the pass, to which parameters are constants.

    Raises:
        UnsupportedModelError: there are no blocks that are modules.
    """
    modules = list(blocks)
    if not modules:
        wanted = "A model whose blocks are modules, which can run again."
        raise UnsupportedModelError(wanted, "one without such blocks", "checkpoint=False.")
    replaced: list[Forward] = []
    try:
        for block in modules:
            replaced.append(Forward(block, partial(_run, block.forward, partial(_again, rule, biases))))
        yield
    finally:
        for one in reversed(replaced):
            one.remove()


def _run(forward: Any, contexts: Any, *args: Any, **kwargs: Any) -> Any:
    """What a tensor carries from outside is left there, and no keys are kept: the block runs again without either."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    args, kwargs = tuple(map(_no_cache, args)), {name: _no_cache(x) for name, x in kwargs.items()}
    with torch._C.DisableTorchFunction():
        for x in tensors_in((args, kwargs)):
            bare: Tensor = x.view_as(x)
            args, kwargs = swap(args, x, bare), swap(kwargs, x, bare)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _no_cache(x: Any) -> Any:
    """Keys of a pass would be added to once more by the second one."""
    return None if hasattr(x, "get_seq_length") else x


def _again(rule: str, biases: bool) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """What a block runs in: at first what is there already, and later the rule anew."""
    return nullcontext(), _under(rule, biases)


@contextmanager
def _under(rule: str, biases: bool) -> Iterator[None]:
    with under(rule), BiasTap(lambda y, axis: 0) if biases else nullcontext():
        yield
