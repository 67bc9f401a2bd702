"""Attention that a model writes out: its weights, followed from the softmax to the product with the values.

On their way the weights may change their shape, and entries may be set to zero. Which axis the keys lie on is known
from the softmax; where it goes is found by the model's own calls, run on a twin without memory.
"""

from __future__ import annotations

from inspect import getattr_static
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_vit.sites.calls import name_of
from captum_vit.sites.einsums import Axes, Product, axes_of, product_of
from captum_vit.trace.modes.functions import is_in_place, named

SOFTMAX: set[Any] = named("softmax")
SHAPED = named(
    "__getitem__ expand expand_as flatten moveaxis movedim narrow permute reshape reshape_as select squeeze swapaxes "
    "swapdims transpose unflatten unsqueeze view view_as"
) | {getattr_static(torch.Tensor, name).__get__ for name in ("mT", "mH")}
CAST = named("bfloat16 clone contiguous double dropout float half to type type_as")


class Attended(NamedTuple):
    """Weights and values of one attention, batch and heads in front."""

    probs: Tensor  # shape: (B, H, Nq, Nk)
    values: Tensor  # shape: (B, H, Nk, d)
    lead: list[str]  # the axes that are the batch and the heads, the batch first
    sizes: list[int]
    axes: tuple[str, str]  # of queries ("" if there is none), of the values' channels
    sure: bool  # whether the sizes of the axes leave no doubt which of them is the batch

    def result(self, context: Tensor, out_axes: str) -> Tensor:
        """The context (B, H, Nq, d) in the order of axes that the model's product has."""
        query, channel = self.axes
        laid = context.reshape(*self.sizes, *context.shape[-2:])
        laid = laid if query else laid.squeeze(-2)
        found = [*self.lead, *query, channel]
        return laid.permute([found.index(letter) for letter in out_axes])


_MARK = "_keys_of_attention"


def mark(weights: Tensor, twin: Tensor) -> None:
    """Let a tensor carry a twin of its shape, without memory, in which the keys alone have a stride."""
    setattr(weights, _MARK, twin)


def begins(args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> bool:
    """Mark the result of a softmax, unless it has too few axes to be an attention's; whether it was marked."""
    if result.dim() < 3:
        return False
    mark(result, twin_over(softmax_axis(args, kwargs), result.shape))
    return True


def twin_over(axis: int, shape: torch.Size) -> Tensor:
    """A tensor of a shape without memory, in which only the axis of the keys has a stride."""
    sizes = [1] * len(shape)
    sizes[axis] = shape[axis]
    return torch.empty(shape[axis], device="meta").view(sizes).expand(shape)


def softmax_axis(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The axis that a softmax runs over."""
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return -1 if axis is None else int(axis)


def carried(x: Any) -> Tensor | None:
    """The twin of weights on their way; None of anything else."""
    return vars(x).get(_MARK) if isinstance(x, Tensor) else None


def marked(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The weights among the arguments of a call; in few steps, since every call of a pass is looked at."""
    for x in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(x, Tensor):
            if _MARK in x.__dict__:
                return x
        elif type(x) is list and (found := marked(tuple(x), {})) is not None:
            return found
    return None


def follow(weights: Tensor, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a call on weights; its result is marked where that is still weights over the same keys."""
    writes = is_in_place(func) and weights is args[0]
    twin, before = carried(weights), weights.clone() if writes else weights
    if writes:
        delattr(weights, _MARK)
    result = func(*args, **kwargs)
    if twin is None or not isinstance(result, Tensor):
        return result
    if func in SHAPED and weights is args[0] and not (func is torch.Tensor.__getitem__ and _picks(args[1])):
        moved = _moved(func, twin, args[1:], kwargs)
        if moved is not None and keys_on(moved):
            mark(result, moved)
    elif func in CAST or _are_weights(result, before):
        mark(result, twin)
    return result


def _picks(index: Any) -> bool:
    """Whether entries are picked by a tensor."""
    return any(isinstance(x, Tensor) for x in (index if isinstance(index, tuple) else (index,)))


def _moved(func: Any, twin: Tensor, others: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The twin after a change of shape; None where entries were left out, other than whole keys."""
    shaped = torch.Tensor.reshape if func is torch.Tensor.view else func
    moved: Tensor = shaped(twin, *others, **kwargs)
    if moved.numel() >= twin.numel():
        return moved
    (axis,) = keys_on(twin)[:1] or (0,)
    rest = [size for i, size in enumerate(moved.shape) if i != axis]
    fewer_keys = moved.dim() == twin.dim() and rest == [size for i, size in enumerate(twin.shape) if i != axis]
    return twin_over(axis, moved.shape) if fewer_keys else None  # a learned sink was left out


def keys_on(twin: Tensor) -> list[int]:
    """Which axis of the weights counts keys; none if they were joined with another one, or taken apart.

    A single key may be on any axis of length one.
    """
    keys = twin.untyped_storage().nbytes() // twin.element_size()
    if keys == 1:
        return [axis for axis, size in enumerate(twin.shape) if size == 1]
    axes = [i for i, (size, stride) in enumerate(zip(twin.shape, twin.stride(), strict=True)) if size > 1 and stride]
    return axes if [twin.shape[axis] for axis in axes] == [keys] else []


def _are_weights(result: Tensor, before: Tensor) -> bool:
    """Whether every entry is that of before, or was set to zero."""
    if result.shape != before.shape or not result.is_floating_point():
        return False
    with torch.no_grad():
        return bool((result.eq(before) | result.eq(0)).all() and result.any())


def attended(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int) -> tuple[Attended, str] | None:
    """Weights and values of the product in which an attention ends, and the axes of its result."""
    product = product_of(name_of(func), args, kwargs)
    if product is None:
        return None
    product = product.turned() if carried(product.a) is None else product
    twin = carried(product.a)
    axes = axes_of(product)
    if twin is None or axes is None or carried(product.b) is not None:
        return None
    if product.a_axes.index(axes.key) not in keys_on(twin):
        return None
    return _laid_out(product, axes, batch), product.out_axes


def factors(scores: Product, batch: int) -> tuple[Tensor, Tensor] | None:  # shapes: (B, H, Nq, d), (B, H, Nk, d)
    """Queries and keys of a product whose last axis counts keys; None of one that is no product of this kind."""
    query, key = scores.out_axes[-2], scores.out_axes[-1]
    scores = scores if query in scores.a_axes else scores.turned()
    q, k, q_axes, k_axes, out = scores
    channels = {*q_axes} & {*k_axes} - {*out}
    if len(channels) != 1 or query in k_axes or key in q_axes or len(out) < 3:
        return None
    (channel,) = channels
    size = dict(zip(k_axes, k.shape, strict=True))
    size |= {letter: max(n, size.get(letter, 1)) for letter, n in zip(q_axes, q.shape, strict=True)}
    lead, _ = _batch_first(list(out[:-2]), size, batch)
    sizes, front = [size[letter] for letter in lead], "".join(lead)
    laid = (
        _laid(x, axes, front + own + channel, sizes, batch) for x, axes, own in ((q, q_axes, query), (k, k_axes, key))
    )
    queries, keys = laid
    return queries, keys


def _laid_out(product: Product, axes: Axes, batch: int) -> Attended:
    weights, values, p, v, _ = product
    key, query, channel, lead, size = axes
    lead, sure = _batch_first(lead, size, batch)
    sizes = [size[letter] for letter in lead]
    front = "".join(lead)
    probs = _laid(weights, p, front + query + key, sizes, batch, query=bool(query))
    return Attended(probs, _laid(values, v, front + key + channel, sizes, batch), lead, sizes, (query, channel), sure)


def _batch_first(lead: list[str], size: dict[str, int], batch: int) -> tuple[list[str], bool]:
    """The axis as long as the batch before the heads; the first one, if several are, or if it holds both."""
    fits = [letter for letter in lead if size[letter] == batch]
    sure = batch == 1 or len(fits) == 1
    first = fits[:1] or lead[:1]
    return [*first, *(letter for letter in lead if letter not in first)], sure


def _laid(x: Tensor, axes: str, order: str, sizes: list[int], batch: int, query: bool = True) -> Tensor:
    """Axes in this order, with those that it lacks; then batch and heads as two axes."""
    present = [axes.index(letter) for letter in order if letter in axes]
    x = x if present == sorted(present) else x.permute(present)
    for place, letter in enumerate(order):
        x = x if letter in axes else x.unsqueeze(place)
    x = x if query else x.unsqueeze(-2)
    x = x if list(x.shape[:-2]) == sizes else x.expand(*sizes, -1, -1)
    whole = len(sizes) == 2 and sizes[0] == batch
    samples = batch if sizes and sizes[0] % batch == 0 else (sizes or [1])[0]
    return x if whole else x.reshape(samples, -1, *x.shape[-2:])
