"""Rules for the backward pass: the forward values stay, some factors count as constants.

- ``"grad"``: the plain gradient.
- ``"frozen"``: a network is linear in its tokens up to its biases. Attention probabilities, the deviation in
  every norm, the slope of every activation and the gate of every gated unit are held at the values they have.
  Gradient x input then *is* the decomposition that DecompX carries forward token by token, and relevance is
  lost only to biases.
- ``"libra"``: the balanced gradients of LibraGrad. The same, but of a gated unit both streams carry half of the
  gradient, as either could be called the gate. Relevance is lost only to biases here too.
- ``"conservative"``: the rules of Ali et al. Attention probabilities and the deviation in every norm are held, and
  activations and gates have their plain gradient.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from captum_vit.options import one_of
from captum_vit.trace.attention import SOFTMAX, Attention, explicit, unpacked_multi_head
from captum_vit.trace.found import Mode

ACTIVATIONS = {
    F.gelu, F.silu, F.relu, F.tanh, torch.relu, torch.tanh, torch.Tensor.relu, torch.Tensor.tanh,
}  # fmt: skip
GATES = {torch.sigmoid, F.sigmoid, torch.Tensor.sigmoid}
DEVIATIONS = {torch.rsqrt, torch.Tensor.rsqrt}  # of norms that are written out
PRODUCTS = {torch.mul, torch.multiply, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__}


def frozen_attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Attention whose probabilities are constants; only the values carry a gradient. Without one it stays fused."""
    if not value.requires_grad:
        return F.scaled_dot_product_attention(query.detach(), key.detach(), value, *args, **kwargs)
    attention: Attention = explicit(query.detach(), key.detach(), value, *args, **kwargs)
    return attention.context


def frozen_length(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    """x / |x|, with the length a constant: a cosine similarity then is linear in the embedding."""
    return x / x.detach().norm(p, dim, keepdim=True).clamp_min(eps)


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


class FrozenActivation(torch.autograd.Function):
    """The zero-origin rule: y = (y / x) x, with the ratio a constant in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward((y / x).nan_to_num_(nan=0.0))  # 0 / 0 where x is 0
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None


class Halved(torch.autograd.Function):
    """The same values, half the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 0.5


class Frozen(Mode):
    """Inside this context every forward pass builds its graph under the frozen rule.

    A product of an activation and another stream (SwiGLU, GeGLU) counts the activation as the gate;
    a sigmoid is a gate wherever it occurs (QuickGELU, gated attention). An inverse square root is taken
    for the deviation of a norm that is written out.
    """

    activations: Container[Any] = ACTIVATIONS
    gates: Container[Any] = GATES

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return frozen_attention(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return unpacked_multi_head(*args, **kwargs)
        if func is F.normalize:
            return frozen_length(*args, **kwargs)
        if func is F.layer_norm:
            return FrozenLayerNorm.apply(*_positional(_NORM, args, kwargs))
        if func is F.rms_norm:
            return FrozenRMSNorm.apply(*_positional(_RMS, args, kwargs))
        if func in PRODUCTS and _gated(args):
            return self.gated_product(func, args, kwargs)
        result = func(*args, **kwargs)
        if func in SOFTMAX or func in self.gates or func in DEVIATIONS:
            return result.detach()
        if func in self.activations:
            result = FrozenActivation.apply(args[0], result.detach())
            result._is_activation = True
        return result

    def gated_product(self, func: Any, factors: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Of two streams multiplied, the activated one is held constant."""
        held: Tensor = func(*(f.detach() if _activated(f) else f for f in factors), **kwargs)
        return held


class Libra(Frozen):
    """Inside this context every forward pass builds its graph under LibraGrad's balanced gradients.

    As :class:`Frozen`, but a product of an activation and another stream hands half of the gradient to each:
    the product counts both streams once, so without halving their shares would sum to twice its value.
    """

    def gated_product(self, func: Any, factors: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Both streams carry half of the gradient."""
        half: Tensor = Halved.apply(func(*factors, **kwargs))
        return half


class Conservative(Frozen):
    """Inside this context attention and norms are frozen; activations and gates are not."""

    activations: Container[Any] = ()
    gates: Container[Any] = ()


_MODES: dict[str, list[type[TorchFunctionMode]]] = {
    "grad": [], "frozen": [Frozen], "libra": [Libra], "conservative": [Conservative],
}  # fmt: skip
RULES = tuple(_MODES)


def checked_rule(rule: str) -> str:
    """The rule, if there is one of that name."""
    return one_of("rule", rule, RULES)


def rule_modes(rule: str) -> list[TorchFunctionMode]:
    """The modes inside which a forward pass builds its graph under a rule; none for the plain gradient."""
    return [mode() for mode in _MODES[checked_rule(rule)]]


@contextmanager
def under(rule: str) -> Iterator[None]:
    """Inside, forward passes build their graph under a rule."""
    with ExitStack() as stack:
        for mode in rule_modes(rule):
            stack.enter_context(mode)
        yield


_NORM = {"input": None, "normalized_shape": None, "weight": None, "bias": None, "eps": 1e-5}
_RMS = {"input": None, "normalized_shape": None, "weight": None, "eps": None}


def _positional(defaults: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Arguments in order, since an autograd function takes no keywords."""
    return list((defaults | dict(zip(defaults, args, strict=False)) | kwargs).values())


def _gated(factors: tuple[Any, ...]) -> bool:
    """Whether these are two streams, one of them activated; a parameter is no stream."""
    streams = all(isinstance(f, Tensor) and f.requires_grad and not isinstance(f, nn.Parameter) for f in factors)
    return streams and any(map(_activated, factors))


def _activated(x: Any) -> bool:
    return hasattr(x, "_is_activation")
