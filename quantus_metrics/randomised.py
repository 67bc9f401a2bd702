"""Models that have learnt nothing: the entries of their weights have changed places."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from captum_vit.trace.run.found import Ends, uninterrupted


def randomised(model: nn.Module, generator: Generator | None = None) -> nn.Module:
    """A copy of the model in which the entries of every parameter have changed places.

    Scales stay as they were, and no parameter is left out, whoever holds it.
    """
    found = copy.deepcopy(model)
    shuffle([*found.parameters()], generator)
    return found


@uninterrupted
def weights_kept(weights: Sequence[nn.Parameter]) -> Ends:
    """At its end these parameters hold the memory that they held before, also after an exception or an interrupt.

    Inside, `shuffle` lets other memory stand in for it, and writes nothing into it.
    """
    own = [parameter.data for parameter in weights]

    def put_back() -> None:
        for parameter, data in zip(weights, own, strict=True):
            parameter.data = data

    try:
        try:
            yield
        finally:
            put_back()
    finally:
        put_back()  # an interrupt may break off the first


def shuffle(weights: Sequence[nn.Parameter], generator: Generator | None = None) -> None:
    """The entries of each parameter change places, in memory of their own."""
    for parameter in weights:
        parameter.data = shuffled(parameter.data, generator)


def shuffled(weights: Tensor, generator: Generator | None = None) -> Tensor:
    """The same numbers at other places."""
    order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
    return weights.flatten()[order].view(weights.shape)
