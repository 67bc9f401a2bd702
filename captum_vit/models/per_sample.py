"""What of a call belongs to each sample of its batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def is_of_each_sample(x: Any, batch: int) -> bool:
    """Whether an argument holds one value for each sample, by Captum's rule: a tensor as long as the batch."""
    return isinstance(x, Tensor) and x.dim() > 0 and len(x) == batch


def of_samples(
    given: tuple[Any, ...],
    batch: int,
    which: slice | Tensor,  # shape: (n,)
) -> tuple[Any, ...]:
    """What belongs to some samples of a batch: these rows of arguments as long as it. Others are shared, and stay."""

    def chosen(x: Tensor) -> Tensor:
        return x[which if isinstance(which, slice) else which.to(x.device)]

    return tuple(chosen(x) if is_of_each_sample(x, batch) else x for x in given)


def first_samples(
    inputs: tuple[Tensor, ...], args: tuple[Any, ...], n: int = 1
) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """The inputs and arguments of the first n samples; the same where there are no others."""
    batch = len(inputs[0])
    if batch <= n:
        return inputs, args
    return of_samples(inputs, batch, slice(n)), of_samples(args, batch, slice(n))
