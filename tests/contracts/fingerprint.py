"""Everything about a model, its inputs and the process that a method must leave as it found it."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module

PATCHABLE = ("scaled_dot_product_attention", "softmax", "layer_norm", "multi_head_attention_forward", "linear")
PLAIN = (bool, int, float, str, tuple, type(None))


def fingerprint(model: nn.Module, *inputs: Any, rng: bool = True) -> dict[str, Any]:
    """A flat dictionary; two that are equal mean that nothing was left behind.

    Args:
        model: with all modules inside it.
        inputs: tensors, and whatever else is passed.
        rng: False for methods that draw random numbers.
    """
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found |= {f"{name}: {key}": value for key, value in _module(module).items()}
    configs = {id(m.config): m.config for m in model.modules() if "config" in vars(m)}
    found |= {f"config {key}": (repr(c), getattr(c, "_attn_implementation", None)) for key, c in configs.items()}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors |= {f"input {i}": x for i, x in enumerate(inputs) if isinstance(x, Tensor)}
    found |= {name: _tensor(x) for name, x in tensors.items()}
    return found | _process() | (random_state() if rng else {})


def _module(module: nn.Module) -> dict[str, Any]:
    """Flags, hooks of every kind, names of attributes (a patched `forward` is one), the class."""
    state = vars(module)
    return {
        "attributes": sorted(state),
        "flags": {key: value for key, value in state.items() if isinstance(value, PLAIN)},
        "hooks": {key: list(value) for key, value in state.items() if "hooks" in key and hasattr(value, "keys")},
        "class": (id(type(module)), id(type(module).forward)),
    }


def _tensor(x: Tensor) -> tuple[Any, ...]:
    values = x.detach().clone().contiguous().view(torch.uint8).numpy().tobytes() if x.dim() else x.item()
    digest = hashlib.md5(values).hexdigest() if isinstance(values, bytes) else values
    own_hooks = list(x._backward_hooks or ())
    return id(x), x.dtype, x.requires_grad, x.grad is None if x.is_leaf else None, own_hooks, digest


def _process() -> dict[str, Any]:
    hooks = {name: list(hooks) for name, hooks in vars(torch_module).items() if name.endswith("_hooks")}
    return {
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": torch.is_autocast_enabled("cpu"),
        "default dtype": torch.get_default_dtype(),
        "function modes": torch.overrides._get_current_function_mode_stack(),
        "compile stance": torch._dynamo.eval_frame._stance.stance,
        "functions": [id(getattr(F, name)) for name in PATCHABLE],
        "global hooks": hooks,
    }


def random_state() -> dict[str, Any]:
    """Of every generator."""
    numpy = np.random.get_state(legacy=False)["state"]
    return {
        "torch RNG": torch.get_rng_state().numpy().tobytes(),
        "numpy RNG": (numpy["key"].tobytes(), numpy["pos"]),
        "python RNG": random.getstate(),
    }
