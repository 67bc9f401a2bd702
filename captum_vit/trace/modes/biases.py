"""What biases add to a score: found by watching the calls that add one, whatever the modules are called.

A bias b that is added to a tensor y contributes b times the gradient at y. It is summed over channels while the
gradient passes, so nothing of the size of y is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional as F

from captum_vit.errors import TraceError
from captum_vit.sites.mode import Mode
from captum_vit.tokens import TokenLayout
from captum_vit.trace.modes.entrywise import constant, constants, taken_constant

See = Callable[[Any, Tensor], None]
"""Is given the place of a bias, and bias x gradient (B, ...), summed over channels."""
Where = Callable[[Tensor, int], Any]
"""The place of a bias, from the tensor to which it was added, and the axis of its channels."""

# Which argument is the bias, and whether channels are the second dimension of the output or the last ones.
LAST = {F.linear: 2, F.layer_norm: 3}
SECOND = {torch.conv1d: 2, torch.conv2d: 2, torch.conv3d: 2, torch.conv_transpose1d: 2, torch.conv_transpose2d: 2,
          torch.conv_transpose3d: 2, F.group_norm: 3, F.instance_norm: 4}  # fmt: skip
SUMS = {torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__radd__,
        torch.Tensor.__iadd__, torch.addmm, torch.Tensor.addmm}  # fmt: skip


class BiasTap(Mode):
    """Tells of every bias that is added to what depends on the tokens, while the gradient passes it.

    Parameters enter as constants, so what has a graph is what depends on the tokens: the biases of a text tower
    beside a picture are not counted. Modules that hide their projections are unpacked.

    Args:
        place: the place of a bias that is added now, such as the block that runs.
    """

    def __init__(self, place: Where) -> None:
        super().__init__()
        self.place, self.eps = place, 0.0  # the rounding of the least precise sum
        self._precisions: set[torch.dtype] = set()
        self.told: list[See] = []
        """Who is told; while there is nobody, gradients pass unseen. The graph's hooks hold this list, and not the
        tap: through what that holds a graph would keep itself alive for ever."""

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if getattr(func, "__name__", "") == "__get__":  # shape, dtype, requires_grad: of the parameter itself
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():  # what is done here is no call of the model
            held, named = constants(args), constant(kwargs) if kwargs else kwargs
        result = func(*held, **named)
        if func is Tensor.__setitem__:
            with torch._C.DisableTorchFunction():
                self._look(func, args, kwargs, args[0])
        if isinstance(result, Tensor):
            with torch._C.DisableTorchFunction():
                self._look(func, args, kwargs, result)
        return result

    def _look(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> None:
        """Follow the bias that a call added to what depends on the tokens."""
        if not result.requires_grad:
            return
        if result.dtype not in self._precisions:
            self._precisions.add(result.dtype)
            self.eps = max(self.eps, torch.finfo(result.dtype).eps)
        bias, other = _added(func, args, kwargs), taken_constant(result)
        part, second = None, False
        if bias is not None:
            second = func in SECOND or func is F.batch_norm
            part = partial(_over_channels, bias.detach(), second)
        elif other is not None:
            part = partial(_times, other)
        if part is not None:
            place = self.place(result, 1 if second else -1)
            _made(result).register_prehook(partial(_tell, self.told, place, part, result.shape))


def _made(result: Tensor) -> Node:
    """Where a call enters the graph: a hook of its result would move on when a part of that is written over.

    A linear layer returns a view of the whole that it makes, and the graph behind a view is made anew then.
    """
    whole = result._base
    same = whole is not None and whole.numel() == result.numel() and whole.is_contiguous() and result.is_contiguous()
    node = whole.grad_fn if whole is not None and same else result.grad_fn
    assert node is not None
    return node


def _tell(
    told: list[See], place: Any, part: Callable[[Tensor], Tensor], shape: torch.Size, grads: tuple[Tensor, ...]
) -> None:
    for see in told:
        see(place, part(grads[0].reshape(shape)))


def _added(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The bias that a call adds to its result."""
    if func is F.batch_norm:
        return _shift(*args, **kwargs)
    position = LAST.get(func) or SECOND.get(func)
    if position is not None:
        bias: Tensor | None = args[position] if len(args) > position else kwargs.get("bias")
        return bias
    if func in SUMS:  # a norm or a layer that is written out; tables of positions are no biases
        return next((x for x in args if isinstance(x, nn.Parameter) and x.dim() < 2), None)
    return None


def _shift(x: Tensor, mean: Tensor | None, *args: Any, **kwargs: Any) -> Tensor | None:
    """What a batch norm with fixed statistics makes of zeros."""
    return None if mean is None else F.batch_norm(torch.zeros_like(mean)[None], mean, *args, **kwargs)[0]


def _times(constant: Callable[[], float | Tensor], grad: Tensor) -> Tensor:  # (B, ..., D) -> (B, ...)
    """A constant that a rule found, a number or a table, times the gradient.

    A class that is masked has minus infinity added, which is nothing to the score of another.
    """
    product = (grad * constant()).masked_fill_(grad.eq(0), 0)
    return product if product.dim() == 1 else product.sum(-1)


def _over_channels(
    bias: Tensor,  # shape: (D,) or the last dimensions, or broadcast
    second: bool,
    grad: Tensor,  # shape: (B, ..., D), or (B, D, ...)
) -> Tensor:  # shape: (B, ...)
    """Bias x gradient, summed over channels."""
    grad = grad.to(bias.dtype)  # narrower under autocast
    if second:
        return torch.tensordot(grad, bias, dims=([1], [0]))
    if grad.dim() == 1:  # one number for each sample
        return grad * bias
    if bias.dim() > 1:
        return torch.tensordot(grad, bias, bias.dim())
    return grad @ bias.expand(grad.shape[-1])


class BiasRelevance:
    """Bias x gradient of every token, place by place.

    A bias belongs to the token to which it is added. Where tokens have been pooled, to the rows that the
    pooling reads, with its weights.
    """

    def __init__(
        self,
        layout: TokenLayout,
        pool: Tensor,  # shape: (B, N)
    ) -> None:
        self.layout, self.pool = layout, pool
        self.by_place: dict[int, Tensor] = {}  # shape of each: (B, N)

    def add(
        self,
        place: int,
        part: Tensor,  # shape: (B, ...)
    ) -> None:
        """Credit the tokens; sums are kept in float32 or wider."""
        part = self._by_token(part.to(torch.promote_types(part.dtype, torch.float32)))
        self.by_place[place] = self.by_place.get(place, 0) + part

    def _by_token(self, part: Tensor) -> Tensor:  # shape: (B, N)
        batch, n_tokens = self.pool.shape
        part = batch_first(part, batch)
        if n_tokens in part.shape[1:]:
            return _rows(part, n_tokens)
        if part.shape[-2:] == self.layout.grid:
            part = part.flatten(-2)
        standing = n_tokens - len(self.layout.special)
        if standing in part.shape[1:] and standing > 1:  # a head that drops special tokens first
            return self.layout.lengthened(_rows(part, standing))
        return part.reshape(batch, -1).sum(1, keepdim=True) * self.pool


def batch_first(part: Tensor, batch: int) -> Tensor:  # shape: (B, ..., ...)
    """Rows of all samples, or heads or windows of all samples, behind one another are separated."""
    if part.shape[0] % batch:
        raise TraceError(
            "Biases that are added to tensors with the batch first.",
            f"one added to {tuple(part.shape)} rows, in a batch of {batch}",
            "a batch of one sample, or a method that reads no biases, such as CAT.",
        )
    return part if part.shape[0] == batch else part.unflatten(0, (batch, -1))


def _rows(part: Tensor, n_tokens: int) -> Tensor:  # shape: (B, n_tokens)
    """Summed over everything (such as heads) but the samples and the last dimension that counts tokens."""
    last = max(d for d in range(1, part.dim()) if part.shape[d] == n_tokens)
    return part.movedim(last, 1).flatten(2).sum(2) if part.dim() > 2 else part
