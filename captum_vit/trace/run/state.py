"""The model is left exactly as it was found, and refused where it cannot be explained as it is."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from inspect import isfunction
from threading import RLock
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils import checkpoint

from captum_vit.errors import CaptumVitError, InputError, ModelStateError, TraceError
from captum_vit.models.modules import modules_of
from captum_vit.trace.run.found import Ends, Found, errors_of, uninterrupted

NO_CHECKPOINTS = "the model without gradient checkpointing, which explanations do not need."

# Hooks, forwards and the stance of the compiler are the model's or the process's: two threads would mix theirs up.
_ONE_AT_A_TIME = RLock()


@uninterrupted
def undisturbed(model: nn.Module) -> Ends:
    """Run a model for explanation: no graph until a hook asks for one, no autocast, no checkpointing.

    Works under ``torch.no_grad()`` and ``torch.inference_mode()``, and with compiled models, whose hooks
    only fire in eager mode. A second thread waits for its turn. Everything is put back at the end, also after an
    exception, or an interrupt at any moment.

    Raises:
        ModelStateError: a part of the model is in training mode and may depend on it, or has its weights elsewhere.
        TraceError: the model recomputes its blocks in the backward pass.
    """
    modules = modules_of(model)
    parameters = [p for m in modules if m._parameters for p in m._parameters.values() if p is not None]
    refuse_training(model, modules)
    devices = _devices(model, parameters)
    handled = sys.exc_info()[1]
    with _ONE_AT_A_TIME:
        found = Found(modules, parameters, devices)
        with found.kept():
            found.quieten(bool([m for m in modules if m._compiled_call_impl is not None or "_orig_mod" in m._modules]))
            try:
                yield
            except GeneratorExit as end:
                for error in errors_of(end, handled)[:1]:
                    _refuse_checkpoints(error)


def _refuse_checkpoints(error: BaseException) -> None:
    known = isinstance(error, CaptumVitError | torch.OutOfMemoryError)
    if isinstance(error, RuntimeError) and not known and _from_a_checkpoint(error):
        got = "blocks that the model itself recomputes in the backward pass"
        raise TraceError("Blocks that run once.", got, NO_CHECKPOINTS) from error


def _from_a_checkpoint(error: BaseException) -> bool:
    return any(frame.f_code.co_filename == checkpoint.__file__ for frame, _ in walk_tb(error.__traceback__))


def _devices(model: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    """Where the weights are, which must be where they can be read."""
    found = {device.type for device in {p.device for p in parameters}}
    if "meta" in found:
        name = next(name for name, p in model.named_parameters() if p.is_meta)
        raise ModelStateError(
            "Weights in memory.",
            f"{type(model).__name__} with {name} on the meta device, to be loaded when it is used",
            "accelerate.hooks.remove_hook_from_submodules(model), or the model loaded without offloading.",
        )
    return found


def refuse_training(model: nn.Module, modules: Iterable[nn.Module]) -> None:
    """Dropout and random depth would make every map a different one.

    Raises:
        ModelStateError: a module is in training mode that may compute something else there.
    """
    for module in modules:
        if module.training and _depends_on_mode(module):
            name = next(name for name, m in model.named_modules() if m.training and _depends_on_mode(m))
            raise ModelStateError(
                "A model in evaluation mode: in training mode dropout makes every map a different one.",
                f"{type(model).__name__} with {name or 'itself'} in training mode",
                "model.eval()",
            )


def _depends_on_mode(module: nn.Module) -> bool:
    """Any module may, but for one of torch.nn without hooks, in whose code nothing asks for the mode."""
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return True
    if isinstance(module, _DropoutNd) and module.p == 0:
        return False
    classes = type(module).__mro__[: type(module).__mro__.index(nn.Module)]
    functions = [value for cls in classes for value in vars(cls).values() if isfunction(value)]
    own = all(cls.__module__.startswith("torch.nn.") for cls in classes)
    return not own or any("training" in function.__code__.co_names for function in functions)


def refuse_opaque(modules: Sequence[nn.Module]) -> None:
    """Layers with weights in a few bits may hand no gradient back; what flows beside them would be a wrong map.

    Args:
        modules: all modules of a model, itself first.

    Raises:
        ModelStateError: the model has such a layer.
    """
    model = modules[0]
    for module in modules:
        state = module.__dict__
        if "in_features" in state and "out_features" in state and _quantised(module) and not _hands_back(module, model):
            name = next(name for name, m in model.named_modules() if m is module)
            raise ModelStateError(
                "Layers that return a gradient.",
                f"{name or 'the model'}, a {type(module).__module__}.{type(module).__name__} that returns none",
                "the model before it was quantised, or PredictionMap, which needs no gradient.",
            )


def _quantised(module: nn.Module) -> bool:
    """Whether this linear layer holds no matrix of floating-point numbers."""
    own = module._parameters.get("weight")
    if own is not None and own.is_floating_point() and own.dim() > 1:
        return False
    return not any(p.is_floating_point() and p.dim() > 1 for p in module.parameters())


def _hands_back(linear: Any, model: nn.Module) -> bool:
    """Tried: kernels without a derivative return a graph all the same, that ends there with a warning."""
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        like = next(p for p in model.parameters() if p.is_floating_point()).detach()
        x = like.new_ones(1, 1, int(linear.in_features)).requires_grad_()
        try:
            y = linear.forward(x)
        except (
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ):  # no linear layer, but named like one
            return True
        grad = torch.autograd.grad(y.sum(), x, allow_unused=True)[0] if y.requires_grad else None
    return grad is not None and bool(grad.any())


def checked_inputs(inputs: object, model: nn.Module) -> tuple[Tensor, ...]:
    """Inputs as a tuple of ordinary tensors of the model's dtype; refused if empty or not finite."""
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    if not tensors or not all(isinstance(t, Tensor) for t in tensors):
        kinds = ", ".join(type(t).__name__ for t in tensors)
        entry = next(iter(inputs), None) if isinstance(inputs, Mapping) else None
        raise InputError(
            "A tensor, or a tuple of tensors, with the batch first.",
            f"tuple of {kinds or 'nothing'}" if isinstance(inputs, tuple) else kinds,
            f"{'the tensor itself' if entry is None else f'its entry {entry!r}'}; keyword inputs go into "
            "`additional_forward_args` in the order of the forward.",
        )
    return tuple(_checked(t, dtype_of(model), least=2 if t is tensors[0] else 1) for t in tensors)


def checked_args(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Further arguments as ordinary tensors. Keys of earlier passes are refused: every pass would add to them."""
    cache = next((x for x in args if hasattr(x, "get_seq_length")), None)
    if cache is not None:
        raise InputError("A whole text, without keys of earlier passes.", type(cache).__name__, "None in its place.")
    return tuple(map(without_inference_mode, args))


def _checked(x: Tensor, dtype: torch.dtype | None, least: int) -> Tensor:
    if x.dim() < least or x.shape[0] == 0:
        hint = "x.unsqueeze(0) for one sample without its batch dimension."
        raise InputError("A batch of at least one sample.", f"shape {tuple(x.shape)}", hint)
    if not x.is_floating_point():
        return without_inference_mode(x)
    if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():  # a finite sum has finite terms, and is cheap
        count = int((~torch.isfinite(x)).sum())
        got = f"{count} NaN or infinite values of {x.numel()}"
        raise InputError("Finite inputs.", got, "x.nan_to_num(), once it is known where they come from.")
    x = x.detach()
    x = x if dtype is None else x.to(dtype)  # NoiseTunnel adds float32 noise to the inputs of bf16 models
    return without_inference_mode(x)


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """The precision of its parameters; None if it has none."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), None)


def without_inference_mode(x: Any) -> Any:
    """Tensors made in inference mode cannot take part in a backward pass; their copies can. All else as it is."""
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x


def widened(x: Tensor) -> Tensor:
    """What is shown is float32 for half-precision models, else of the model's precision."""
    return x.float() if x.element_size() < 4 else x
