"""How an operation hands the relevance of its result to its inputs, as autograd functions.

What autograd calls the gradient is relevance here; see :mod:`captum_vit.trace.modes.relevance` for which rule is whose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.overrides import resolve_name

from captum_vit.errors import TraceError, UnsupportedModelError

STABILISER = 1e-12
Function = Callable[..., Tensor]


class Redistributed(torch.autograd.Function):
    """y = f(x, ...) for which each x gets its share of z(x, ...), times ``part``."""

    @staticmethod
    def forward(ctx: Any, f: Function, z: Function, part: float, *xs: Tensor) -> Tensor:
        ctx.save_for_backward(*xs)
        ctx.z, ctx.part = z, part
        y = f(*xs)
        return y.clone() if y._is_view() else y  # an activation in place may follow, which no view would allow

    @staticmethod
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor | None, ...]:
        xs = [x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.enable_grad():
            z = ctx.z(*xs)
        slopes = torch.autograd.grad(z, xs, divided(R, z.detach()))
        return None, None, None, *(ctx.part * x.detach() * slope for x, slope in zip(xs, slopes, strict=True))


class Added(torch.autograd.Function):
    r"""y = a + b, where a stream that is larger in all does not also get more for what cancels.

    The shares :math:`R_a = a R / (a + b)` and :math:`R_b` are scaled, sample by sample, so that their sums over
    the sample stand to each other as the absolute values of those sums, and together are what arrived.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, batch: int) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.batch = batch
        return a + b

    @staticmethod
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        ratio = divided(R, a + b)
        R_a, R_b = a * ratio, b * ratio
        total, sum_a, sum_b = (_of_each_sample(x, ctx.batch) for x in (R, R_a, R_b))
        both = sum_a.abs() + sum_b.abs()
        scaled_a, scaled_b = (x * divided(divided(s.abs(), both) * total, s) for x, s in ((R_a, sum_a), (R_b, sum_b)))
        return scaled_a, scaled_b, None


class Passed(torch.autograd.Function):
    """What ``compute`` gives, with all relevance to x, whose shape it has."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        return compute()

    @staticmethod
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor, None]:
        return R, None


class Undefined(torch.autograd.Function):
    """A result that may be used as a constant; relevance that arrives is refused."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, func: Any) -> Tensor:
        ctx.func = func
        return y.clone()

    @staticmethod
    def backward(ctx: Any, R: Tensor) -> NoReturn:
        raise undefined(ctx.func)


def divided(R: Tensor, z: Tensor) -> Tensor:
    """R / z, and zero where z is zero."""
    return torch.where(z == 0, 0, R / (z + STABILISER * z.sign()))


def positive(f: Function, x: Tensor, w: Tensor) -> Tensor:
    """Of a sum of products x w, the positive ones."""
    return f(x.clamp(min=0), w.clamp(min=0)) + f(x.clamp(max=0), w.clamp(max=0))


def undefined(func: Any) -> UnsupportedModelError:
    """What a model does between the tokens and its output that no rule covers."""
    return UnsupportedModelError(
        "Linear layers, products, sums, means, norms, softmax and activations, for which relevance is defined.",
        f"`{resolve_name(func) or func.__name__}` on the way from the tokens to the output",
        "a method that needs only the plain gradient, such as LayerCDAM or ConservativeLRP.",
    )


def _of_each_sample(x: Tensor, batch: int) -> Tensor:
    """The sum over each sample, for all of its rows."""
    if x.shape[0] % batch:
        raise TraceError(
            "Sums of tensors with the batch first.",
            f"one of {tuple(x.shape)}, in a batch of {batch}",
            "a batch of one sample.",
        )
    sums = x.reshape(batch, -1).sum(1).repeat_interleave(x.shape[0] // batch)
    return sums.view(-1, *[1] * (x.dim() - 1))
