"""The baseline that every method must beat."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from captum_vit.attr.base import TokenAttribution
from captum_vit.models.transformer import Transformer
from captum_vit.options import generator_or_none
from captum_vit.trace.record.record import Record, Want


class RandomAttribution(TokenAttribution):
    r"""Uniform random relevance in [0, 1), drawn on every call, independent of image and target.

    .. math:: S_i \sim \mathcal{U}[0, 1)

    Costs one forward pass, which gives the number of tokens. Sample i of a batch depends on its
    place in the batch, as random numbers do.

    Args:
        forward_func: the model, or a target module around it.
        generator: draws the numbers; torch's global generator if None.
        output: see :class:`TokenAttribution`.
    """

    def __init__(self, forward_func: nn.Module, *, generator: Generator | None = None, output: str = "grid") -> None:
        super().__init__(forward_func, output=output)
        self.generator = generator_or_none("generator", generator)

    def want(self, transformer: Transformer) -> Want:
        return Want()

    def relevance(self, found: Record) -> Tensor:
        shape, output = (len(found.output), found.layout.n_tokens), found.output
        device = output.device if self.generator is None else self.generator.device
        wide = torch.float64 if output.dtype == torch.float64 else torch.float32
        return torch.rand(shape, generator=self.generator, device=device, dtype=wide).to(output.device)
