"""What the value of an option may be, checked in the same words everywhere and before any work.

Each function gives the value back, so that a constructor reads ``self.score = one_of("score", score, SCORES)``.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import torch

from captum_vit.errors import OptionError

Text = TypeVar("Text", bound=str)

IN_MEMORY = "None for the usual number at once, or as many samples as memory holds."


def one_of(name: str, value: Text, allowed: Collection[str]) -> Text:
    """The value, if it is allowed."""
    if isinstance(value, str) and value in allowed:
        return value
    near = get_close_matches(str(value), allowed, n=1, cutoff=0.4) or list(allowed)[:1]
    raise OptionError(f"`{name}` must be one of {', '.join(map(repr, allowed))}.", shown(value), f"{name}={near[0]!r}.")


def integer(name: str, value: Any, least: int | None = 1, *, hint: str) -> int:
    """The value as an int, if it is a whole number and not too small; the hint names one that will do."""
    if isinstance(value, Integral) and not isinstance(value, bool) and (least is None or int(value) >= least):
        return int(value)
    bound = "" if least is None else f", at least {least}"
    raise OptionError(f"`{name}` must be a whole number{bound}.", shown(value), hint)


def integer_or_none(name: str, value: Any, least: int | None = 1, *, hint: str) -> int | None:
    """The same where None stands for something, which is in the hint."""
    return None if value is None else integer(name, value, least, hint=hint)


def two_integers(name: str, value: Any, *, hint: str) -> tuple[int, int] | None:
    """Two whole numbers, of one that stands for both or of two; None stays."""
    if value is None:
        return None
    sides = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(sides) != 2:
        raise OptionError(f"`{name}` must be one whole number, or two.", shown(value), hint)
    return integer(name, sides[0], hint=hint), integer(name, sides[1], hint=hint)


def number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    hint: str,
) -> float:
    """The value as a float, if it is a finite number of the range; the hint names one that will do."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if number and least <= value <= most and above < value < below:
        return float(value)
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    said = ", ".join(f"{words} {bound:g}" for words, bound in bounds.items() if math.isfinite(bound))
    raise OptionError(f"`{name}` must be a finite number{said and ', '}{said}.", shown(value), hint)


def boolean(name: str, value: Any) -> bool:
    """The value, if it is True or False: any other would count as one of them without a word."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise OptionError(f"`{name}` must be True or False.", shown(value), f"{name}=True, or {name}=False.")


def known(what: str, given: Collection[str], taken: Collection[str]) -> None:
    """Refuse keywords that something does not take; those that it takes are listed."""
    for name in given:
        if name not in taken:
            wanted = f"An option of {what}: {', '.join(taken)}." if taken else f"No options: {what} takes none."
            near = get_close_matches(name, taken, n=3, cutoff=0.5)
            hint = f"{' or '.join(near or list(taken)[:1])}." if taken else f"{what} without `{name}`."
            raise OptionError(wanted, repr(name), hint)


def function(name: str, value: Any, *, hint: str) -> Any:
    """The value, if it can be called."""
    if callable(value):
        return value
    raise OptionError(f"`{name}` must be a function, or a class that is made by a call.", shown(value), hint)


def generator_or_none(name: str, value: Any) -> torch.Generator | None:
    """The value, if it draws random numbers, or is None."""
    if value is None or isinstance(value, torch.Generator):
        return value
    raise OptionError(f"`{name}` must be a torch.Generator, or None.", shown(value), "torch.Generator().")


def kind_of(value: Any) -> str:
    """The type of a value; with shape and dtype where it has them."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"shape {tuple(value.shape)} of {value.dtype}"
    return type(value).__name__


def shown(value: Any) -> str:
    """A value as it was written, cut short where it is long."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
