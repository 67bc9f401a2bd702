"""A model as its modules: out of its wrappers, and every one in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from captum_vit.errors import UnsupportedModelError
from captum_vit.options import shown


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside what copies it to other devices, or counts the gradients that pass it in training."""
    return model.module if isinstance(model, nn.DataParallel | DistributedDataParallel) else model


def named_tower(model: nn.Module) -> nn.Module | None:
    """The part that a target module names in its attribute ``tower``, the innermost if it names one in turn."""
    named = getattr(unwrapped(model), "tower", None)
    return (named_tower(named) or named) if isinstance(named, nn.Module) else None


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` wrapped, or the module itself."""
    return module._modules.get("_orig_mod") or module


def modules_of(root: nn.Module, without: Iterable[nn.Module] = ()) -> list[nn.Module]:
    """Every module of a tree once, each before those inside it; some are left out with all they hold.

    ``Module.modules`` makes a name for each, which takes several times as long; with small batches that shows.
    """
    seen = {*without}
    found = [] if root in seen else [root]
    seen.add(root)
    for module in found:  # which grows
        if module._modules:
            for child in module._modules.values():
                if child is not None and child not in seen:
                    seen.add(child)
                    found.append(child)
    return found


def module_of(forward_func: Any) -> nn.Module:
    """The module that a forward function is, or whose ``forward`` it is; another method does something else."""
    owner = getattr(forward_func, "__self__", None)
    if isinstance(owner, nn.Module) and getattr(forward_func, "__name__", "") in ("forward", "_wrapped_call_impl"):
        return owner
    if isinstance(forward_func, nn.Module):
        return forward_func
    raise no_module(forward_func)


def unwrapped_module_of(forward_func: Any) -> nn.Module:
    """The same, inside what copies it."""
    return unwrapped(module_of(forward_func))


def no_module(given: Any) -> UnsupportedModelError:
    return UnsupportedModelError(
        "The model itself (an `nn.Module`), since blocks and attention are read inside it.",
        shown(given),
        "the module, or a small `nn.Module` that holds the model and does what your function does.",
    )
