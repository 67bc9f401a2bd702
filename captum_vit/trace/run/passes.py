"""What one explanation runs: a model, a batch, and the transformer that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from captum_vit.models.modules import modules_of
from captum_vit.models.per_sample import first_samples, of_samples
from captum_vit.models.transformer import Transformer


@dataclass(frozen=True)
class Pass:
    """A pass of a model over a batch.

    Args:
        model: what runs.
        inputs: checked tensors, the batch first.
        args: further positional arguments.
        found: the transformer that reads them; None where none was looked for.
        modules: every module of the model, itself first, listed once for all who look through them.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    args: tuple[Any, ...] = ()
    found: Transformer | None = None
    modules: Sequence[nn.Module] = ()

    def __post_init__(self) -> None:
        if not self.modules:
            object.__setattr__(self, "modules", modules_of(self.model))

    @property
    def transformer(self) -> Transformer:
        """The transformer, where one was looked for."""
        assert self.found is not None
        return self.found

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.inputs[0])

    def run(self) -> Any:
        """What the model returns."""
        return self.model(*self.inputs, *self.args)

    def of(self, rows: Tensor) -> Pass:
        """The same of some samples."""
        inputs, args = (of_samples(given, len(self), rows) for given in (self.inputs, self.args))
        return replace(self, inputs=inputs, args=args)

    def of_first(self) -> Pass:
        """The same of the first sample."""
        inputs, args = first_samples(self.inputs, self.args)
        return replace(self, inputs=inputs, args=args)

    def without_transformer(self) -> Pass:
        """The same, where blocks are of no concern."""
        return replace(self, found=None)
