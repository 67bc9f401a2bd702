"""Every product of two tensors, written as one einsum."""

from __future__ import annotations

from string import ascii_letters
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_vit.trace.functions import named

MATMUL = named("matmul bmm __matmul__ __rmatmul__") | {torch.linalg.matmul}
PAIRED = MATMUL | {torch.einsum}


class Product(NamedTuple):
    """The product of two tensors, summed over the axes that the result lacks; an axis is a letter."""

    a: Tensor
    b: Tensor
    a_axes: str
    b_axes: str
    out_axes: str


def product_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Product | None:
    """What a call of ``PAIRED`` multiplies; None if it is no product of two tensors with axes that have names."""
    given = [*args, *(x for x in kwargs.values() if isinstance(x, Tensor))]
    if func is torch.einsum:
        operands = list(given[1]) if isinstance(given[1], list | tuple) else given[1:]
        return _of_equation(given[0], *operands) if len(operands) == 2 else None
    a, b = given[:2] if func is not torch.Tensor.__rmatmul__ else given[1::-1]
    if min(a.dim(), b.dim()) < 2:
        return None
    lead = ascii_letters[: max(a.dim(), b.dim()) - 2]
    left, right = (lead[len(lead) - x.dim() + 2 :] for x in (a, b))
    return Product(a, b, f"{left}XY", f"{right}YZ", f"{lead}XZ")


def _of_equation(equation: str, a: Tensor, b: Tensor) -> Product | None:
    """With a letter for every axis that an ellipsis stands for, and the result's letters where they are implied."""
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    first, second = inputs.split(",")
    hidden = [x.dim() - len(term) + 3 if "..." in term else 0 for x, term in ((a, first), (b, second))]
    ellipsis = "".join(letter for letter in ascii_letters if letter not in equation)[: max(hidden)]
    if not arrow:
        out = "..." + "".join(sorted(letter for letter in {*inputs} if letter.isalpha() and inputs.count(letter) == 1))
    first, second = (
        term.replace("...", ellipsis[len(ellipsis) - n :]) for term, n in zip((first, second), hidden, strict=True)
    )
    plain = len({*first}) == len(first) and len({*second}) == len(second)
    return Product(a, b, first, second, out.replace("...", ellipsis)) if plain else None
