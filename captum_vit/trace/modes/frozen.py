"""What a rule holds constant: attention probabilities, deviations of norms, slopes of activations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import resolve_name

from captum_vit.errors import UnsupportedModelError
from captum_vit.sites.calls import called_by
from captum_vit.sites.multi_head import unpacked_multi_head
from captum_vit.sites.site import next_number
from captum_vit.trace.modes.attention_weights import SOFTMAX
from captum_vit.trace.modes.explicit import Attention, explicit
from captum_vit.trace.modes.functions import PRODUCTS, is_in_place


def frozen_attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Attention whose probabilities are constants; only the values carry a gradient. Without one it stays fused."""
    args, kwargs = _held(args), {name: _held(x) for name, x in kwargs.items()}  # a mask may depend on the queries
    if not value.requires_grad:
        return F.scaled_dot_product_attention(query.detach(), key.detach(), value, *args, **kwargs)
    attention: Attention = explicit(query.detach(), key.detach(), value, *args, **kwargs)
    return attention.context


def _held(x: Any) -> Any:
    return x.detach() if isinstance(x, Tensor) else tuple(map(_held, x)) if isinstance(x, tuple) else x


def frozen_length(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    """x / |x|, with the length a constant: a cosine similarity then is linear in the embedding."""
    return x / x.detach().norm(p, dim, keepdim=True).clamp_min(eps)


def frozen_groups(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:  # x: (B, C, ...)
    """Group norm with the deviation of every group a constant in the backward pass."""
    y = x.reshape(len(x), groups, -1)
    y = (y - y.mean(-1, keepdim=True)) * (y.detach().var(-1, correction=0, keepdim=True) + eps).rsqrt()
    each = 1, -1, *[1] * (x.dim() - 2)
    y = y.view_as(x) if weight is None else y.view_as(x) * weight.view(each)
    return y if bias is None else y + bias.view(each)


def cosine(x: Tensor, y: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """``F.cosine_similarity``, with both lengths constants."""
    return (frozen_length(x, 2.0, dim, eps) * frozen_length(y, 2.0, dim, eps)).sum(dim)


def interpolated(x: Tensor, end: Tensor, weight: float | Tensor) -> Tensor:
    """``torch.lerp`` in calls that a mode can see; the sum comes last, whose constant is a bias."""
    return x * (1 - weight) + end * weight


def added_product(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """``torch.addcmul`` likewise."""
    return x + tensor1 * tensor2 * value


def added_quotient(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """``torch.addcdiv`` likewise."""
    return x + tensor1 / tensor2 * value


def spread_and_mean(x: Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """``torch.var_mean`` likewise: the mean is linear, the variance is not."""
    return torch.var(x, dim, *args, **kwargs), torch.mean(x, dim, keepdim=kwargs.get("keepdim", False))


def gated_linear(x: Tensor, dim: int = -1) -> Tensor:
    """``F.glu`` in calls that a mode can see."""
    a, b = x.chunk(2, dim)
    return a * torch.sigmoid(b)


class FrozenLayerNorm(torch.autograd.Function):
    """y = (x - mean) / deviation * weight + bias, with the deviation a constant in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        y, _, inverse_deviation = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(weight, inverse_deviation)
        ctx.dims = tuple(range(-len(shape), 0))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, inverse_deviation = ctx.saved_tensors
        g = grad if weight is None else grad * weight
        g = (g * inverse_deviation).to(grad.dtype)
        return g - g.mean(ctx.dims, keepdim=True), None, None, None, None


class FrozenRMSNorm(torch.autograd.Function):
    """y = x / rms * weight, with the root mean square a constant in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: list[int], weight: Tensor | None = None, eps: float | None = None
    ) -> Tensor:
        dims = tuple(range(-len(shape), 0))
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        ctx.save_for_backward(weight, (x.pow(2).mean(dims, keepdim=True) + eps).rsqrt())
        return F.rms_norm(x, shape, weight, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, inverse_rms = ctx.saved_tensors
        g = grad if weight is None else grad * weight
        return g * inverse_rms, None, None, None


class FrozenBatchNorm(torch.autograd.Function):
    """Batch norm with fixed statistics, a multiple of each channel.

    The derivative that PyTorch has for it is wrong on a CPU for one sample whose gradient has its channels last.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None = None, bias: Tensor | None = None,
        training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        slope = (variance + eps).rsqrt()
        ctx.save_for_backward(slope if weight is None else slope * weight)
        return F.batch_norm(x, mean, variance, weight, bias, False, momentum, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return (grad * slope.to(grad.dtype).view(-1, *[1] * (grad.dim() - 2)), *[None] * 7)


class FrozenActivation(torch.autograd.Function):
    """The zero-origin rule: y = f(0) + slope x, with the slope (y - f(0)) / x a constant in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, zero: float | Tensor = 0.0) -> Tensor:
        rise = y if isinstance(zero, float) and zero == 0 else y - zero
        ctx.save_for_backward((rise / x).nan_to_num_(nan=0.0))  # 0 / 0 where x is 0
        ctx.mark_dirty(y)  # no view of it: a model may go on to write over the result
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None


class Halved(torch.autograd.Function):
    """The same values, half the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 0.5


class Uncovered(torch.autograd.Function):
    """A result that may be used as a constant; where a gradient arrives, ``refuse`` is called."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, refuse: Callable[[], None]) -> Tensor:
        ctx.refuse = refuse
        ctx.mark_dirty(y)  # no view of it: a model may go on to write over the result
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.refuse()
        return grad, None


Outside = dict[int, UnsupportedModelError]
"""Calls that no rule covers and that a gradient reached, by their numbers: later ones are larger."""


def uncovered(func: Any, result: Any, outside: Outside | None = None) -> Any:
    """Results of a function that no rule covers; one that writes over its input is refused at once.

    Where a gradient arrives the function is refused, or noted in ``outside`` if that is given.
    """
    if isinstance(result, tuple | list):
        return type(result)(uncovered(func, x, outside) for x in result)
    if not isinstance(result, Tensor) or not result.requires_grad:
        return result
    error = not_covered(func, called_by())
    if is_in_place(func):
        raise error
    y = result if outside is None else result.clone()  # its own derivative, which goes on then, may have kept it
    return Uncovered.apply(y, partial(_refuse, error, next_number(), outside))


def _refuse(error: UnsupportedModelError, number: int, outside: Outside | None) -> None:
    if outside is None:
        raise error
    outside[number] = error


def not_covered(func: Any, modules: str) -> UnsupportedModelError:
    """What a model does, in these modules, between the tokens and its output that no rule covers."""
    name = resolve_name(func) or func.__name__
    hint = 'rule="grad", or a method of the plain gradient, such as LayerCDAM.'
    if func in SOFTMAX or func in LOGARITHMS:
        hint = f"the scores before it: the model without its last layer. Or {hint}"
    elif func in PRODUCTS:
        hint = f'rule="libra", which shares a product of two streams in halves. Or {hint}'
    return UnsupportedModelError(
        "Linear layers, norms, attention, and functions of single entries, which this rule covers.",
        f"`{name}`{f' ({modules})' * bool(modules)} on the way from the tokens to the output",
        hint,
    )


def frozen_layer_norm(*args: Any, **kwargs: Any) -> Tensor:
    """``F.layer_norm`` with the deviation a constant in the backward pass."""
    y: Tensor = FrozenLayerNorm.apply(*_positional(_NORM, args, kwargs))
    return y


def frozen_rms_norm(*args: Any, **kwargs: Any) -> Tensor:
    """``F.rms_norm`` with the root mean square a constant in the backward pass."""
    y: Tensor = FrozenRMSNorm.apply(*_positional(_RMS, args, kwargs))
    return y


def frozen_batch_norm(*args: Any, **kwargs: Any) -> Tensor:
    """``F.batch_norm`` with fixed statistics."""
    y: Tensor = FrozenBatchNorm.apply(*_positional(_BATCH, args, kwargs))
    return y


def frozen_instance_norm(
    x: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """``F.instance_norm`` with the deviation of every channel of a sample a constant; statistics of its own only."""
    if use_input_stats:
        return frozen_groups(x, x.shape[1], weight, bias, eps)
    y = F.instance_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    found: Tensor = uncovered(F.instance_norm, y)
    return found


_BATCH = {
    "input": None, "running_mean": None, "running_var": None, "weight": None, "bias": None, "training": False,
    "momentum": 0.1, "eps": 1e-5,
}  # fmt: skip
_NORM = {"input": None, "normalized_shape": None, "weight": None, "bias": None, "eps": 1e-5}
_RMS = {"input": None, "normalized_shape": None, "weight": None, "eps": None}


def _positional(defaults: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Arguments in order, since an autograd function takes no keywords."""
    return list((defaults | dict(zip(defaults, args, strict=False)) | kwargs).values())


LOGARITHMS: set[Any] = {torch.log_softmax, F.log_softmax, torch.Tensor.log_softmax}
WHOLE: dict[Any, Any] = {
    F.scaled_dot_product_attention: frozen_attention, F.normalize: frozen_length, F.layer_norm: frozen_layer_norm,
    F.rms_norm: frozen_rms_norm, F.group_norm: frozen_groups, F.instance_norm: frozen_instance_norm,
}  # fmt: skip
"""What is held in one piece."""
SPELLED: dict[Any, Any] = {
    F.multi_head_attention_forward: unpacked_multi_head, F.glu: gated_linear, F.cosine_similarity: cosine,
    torch.lerp: interpolated, Tensor.lerp: interpolated, torch.addcmul: added_product, Tensor.addcmul: added_product,
    torch.addcdiv: added_quotient, Tensor.addcdiv: added_quotient, torch.var_mean: spread_and_mean,
}  # fmt: skip
"""What is written out, so that its pieces come under the rule."""
