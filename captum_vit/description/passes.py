"""Whether two passes run the same code, and the smallest pass over some inputs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_vit.sites.calls import Calls, name_of


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
