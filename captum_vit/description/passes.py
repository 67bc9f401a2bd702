"""Whether two passes run the same code, and the smallest pass over some inputs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_vit.models.per_sample import is_of_each_sample
from captum_vit.sites.calls import Calls, name_of


def first_samples(
    inputs: tuple[Tensor, ...], args: tuple[Any, ...], n: int
) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """The inputs and arguments of the first n samples; the same where there are no others."""
    batch = len(inputs[0])
    if batch <= n:
        return inputs, args

    def first(given: Any) -> Any:
        return given[:n] if is_of_each_sample(given, batch) else given

    return tuple(map(first, inputs)), tuple(map(first, args))


class _Names(Calls):
    """Notes the name of every call."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def returned(self, number: int, func: Any, args: tuple[Any, ...], result: Any, results: list[Tensor]) -> Any:
        self.names.append(name_of(func))
        return result


def codes(model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> list[str]:
    """The torch calls of a pass by name."""
    with _Names() as mode:
        model(*inputs, *args)
    return mode.names
