"""Whether two passes run the same code, and the smallest pass over some inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.models.per_sample import first_samples, is_of_each_sample
from captum_vit.sites.calls import Calls, name_of


def varied_samples(
    inputs: tuple[Tensor, ...], args: tuple[Any, ...], n: int
) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """The first sample n times, each time with other words or other pixels."""
    inputs, args = first_samples(inputs, args, 1)

    def repeated(given: Any) -> Any:
        return given.repeat_interleave(n, 0) if is_of_each_sample(given, 1) else given

    first, *others = map(repeated, inputs)
    step = torch.arange(n, device=first.device).view(-1, *[1] * (first.dim() - 1))
    if first.is_floating_point():
        wave = torch.arange(first[0].numel(), device=first.device).cos().view_as(first[:1])
        changed = first + (step * wave).to(first)
    else:
        changed = torch.where(first >= step, first - step, first + step)
    return (changed, *others), tuple(map(repeated, args))


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
