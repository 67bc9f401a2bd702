"""What the identities are tried on: a model, one sample, its scores, and how much rounding changes those."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor, nn

from captum_vit.doctor import rounding
from captum_vit.models.per_sample import is_of_each_sample
from captum_vit.models.transformer import Transformer
from captum_vit.trace.record.record import Record
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from captum_vit.trace.run.watch import Watch


class Residual(NamedTuple):
    """How far two ways to the same thing are apart."""

    off: float
    rounding: float  # what rounding does, one standard deviation, in the same unit
    size: float  # of the thing itself
    where: str = ""  # the place of the largest difference, for people


@dataclass
class Subject:
    """A model and one sample of its inputs.

    Args:
        scores: (K,) or (..., K), of the plain pass, finite.
        target: the largest of them, as Captum takes it.
        attended: a record of tokens, probabilities, values and streams, if there is one.
    """

    model: nn.Module
    transformer: Transformer
    sample: tuple[Tensor, ...]
    args: tuple[Any, ...]
    scores: Tensor
    target: Any = None
    attended: Record | None = None

    @cached_property
    def eps(self) -> float:
        """Distance from 1 to the next number, in the coarsest precision in which tokens are computed."""
        with undisturbed(self.model):
            return rounding.precision(self.call)

    @cached_property
    def noise(self) -> float:
        """How far rounding moves the scores, all together, by trying."""
        with undisturbed(self.model):
            return rounding.noise(self.call, self.eps)

    @property
    def call(self) -> Pass:
        """The pass of the sample."""
        return Pass(self.model, self.sample, self.args, self.transformer)

    def copies(self, n: int) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """The sample n times, with its arguments."""

        def repeated(given: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(x.repeat_interleave(n, 0) if is_of_each_sample(x, 1) else x for x in given)

        return repeated(self.sample), repeated(self.args)

    def run(self, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Tensor:  # shape: (B, K)
        """A plain pass."""
        with undisturbed(self.model):
            return Watch(replace(self.call, inputs=inputs, args=args)).run().detach()

    def against_scores(self, found: Tensor, wanted: Tensor | None = None) -> Residual:
        """Other scores of the sample, against those of the plain pass or others."""
        wanted = self.scores if wanted is None else wanted
        found, wanted = found.double().flatten(), wanted.double().flatten()
        return Residual(float((found - wanted).norm()), self.noise, float(wanted.norm()))
