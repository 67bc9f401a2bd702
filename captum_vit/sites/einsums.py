"""Every product of two tensors, written as one einsum; and what an attention's product does to the axes."""

from __future__ import annotations

from string import ascii_letters
from typing import Any, NamedTuple

from torch import Tensor

PAIRED = {"matmul", "bmm", "__matmul__", "__rmatmul__", "linalg_matmul", "einsum"}


class Product(NamedTuple):
    """The product of two tensors, summed over the axes that the result lacks; an axis is a letter."""

    a: Tensor
    b: Tensor
    a_axes: str
    b_axes: str
    out_axes: str

    def turned(self) -> Product:
        """The same, the other factor first."""
        return Product(self.b, self.a, self.b_axes, self.a_axes, self.out_axes)


class Axes(NamedTuple):
    """Axes of a product of weights with values: it sums over keys, and keeps queries and channels apart."""

    key: str
    query: str  # "" if there is none
    channel: str
    lead: list[str]  # samples and heads, in the order that the weights have them
    size: dict[str, int]


def product_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Product | None:
    """What a torch call of this name multiplies; None if it is no product of two tensors with axes to name."""
    if name not in PAIRED:
        return None
    given = [*args, *(x for x in kwargs.values() if isinstance(x, Tensor))]
    if name == "einsum":
        operands = list(given[1]) if isinstance(given[1], list | tuple) else given[1:]
        return _of_equation(given[0], *operands) if len(operands) == 2 else None
    a, b = given[:2] if name != "__rmatmul__" else given[1::-1]
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


def axes_of(product: Product) -> Axes | None:
    """The axes by what the product does to them, where the first factor are weights; None if it is no attention's."""
    weights, values, p, v, out = product
    summed = {*p, *v} - {*out}
    channels = [letter for letter in v if letter not in p]
    if len(summed) != 1 or len(channels) != 1 or not summed <= {*p} & {*v}:
        return None
    (key,) = summed
    size = dict(zip(v, values.shape, strict=True))
    size |= {letter: max(n, size.get(letter, 1)) for letter, n in zip(p, weights.shape, strict=True)}
    own = [letter for letter in p if letter not in v]
    query = next((letter for letter in reversed(own) if size[letter] == size[key]), "".join(own[-1:]))
    return Axes(key, query, channels[0], [letter for letter in p if letter not in (key, query)], size)
