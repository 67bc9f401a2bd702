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
    for weights in found.parameters():
        weights.data = shuffled(weights.data, generator)
    return found


@uninterrupted
def with_shuffled(weights: Sequence[nn.Parameter], generator: Generator | None = None) -> Ends:
    """Inside, the entries of these parameters have changed places, in the model itself.

    Nothing is written into the memory of the weights: other memory stands in for it, so they are the same to the last
    bit at the end, also after an exception or an interrupt.
    """
    own = [parameter.data for parameter in weights]

    def put_back() -> None:
        for parameter, data in zip(weights, own, strict=True):
            parameter.data = data

    try:
        try:
            for parameter in weights:
                parameter.data = shuffled(parameter.data, generator)
            yield
        finally:
            put_back()
    finally:
        put_back()  # an interrupt may break off the first


def shuffled(weights: Tensor, generator: Generator | None = None) -> Tensor:
    """The same numbers at other places."""
    order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
    return weights.flatten()[order].view(weights.shape)
