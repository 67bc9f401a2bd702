"""The part of a model before its first block, run on inputs of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.description.bare import WithoutBranches
from captum_vit.errors import MISFITS, CaptumVitError, TraceError, UnsupportedModelError
from captum_vit.models.per_sample import is_of_each_sample
from captum_vit.models.transformer import Addition
from captum_vit.sites.site import Place, reached

AT_ONCE = 2**22  # numbers of the input, in the rows that are run together


@dataclass(frozen=True)
class Embedding:
    """From one of a model's inputs to the tokens at a place, such as its first block.

    The other inputs are the first sample's.

    Args:
        model: what is called.
        entrance: where tokens enter the first block.
        inputs: all tensors of the call, batch first.
        args: its further arguments; those as long as the batch belong to its samples.
        which: the number, in inputs and arguments, of what is changed.
        shown: takes the place of the first sample; None: it is used as it is.
        other_draws: a model that draws random numbers is given others than in a run without this.
        additions: what adds to the stream before the place, and is left out.
    """

    model: nn.Module
    entrance: Place
    inputs: tuple[Tensor, ...]
    args: tuple[Any, ...] = ()
    which: int = 0
    shown: Tensor | None = None  # shape: (1, ...)
    other_draws: bool = False
    additions: tuple[Addition, ...] = ()

    @property
    def sample(self) -> Tensor:  # shape: (1, ...)
        """The input of the first sample, or what is shown in its place."""
        if self.shown is not None:
            return self.shown
        x: Tensor = (*self.inputs, *self.args)[self.which]
        return x[:1].detach()

    def tokens(
        self,
        rows: Tensor,  # shape: (R, ...), in place of the sample
    ) -> Tensor:  # shape: (R, N, D)
        """What enters the first block; with a graph where rows need gradients. The same random numbers every time."""
        batch = len(self.inputs[0])
        given = [_rows_of(x, len(rows), batch) for x in (*self.inputs, *self.args)]
        given[self.which] = rows
        with torch.random.fork_rng([rows.device] if rows.is_cuda else []), torch.set_grad_enabled(rows.requires_grad):
            if self.other_draws:
                torch.rand(1), torch.rand(1, device=rows.device)
            try:
                with WithoutBranches(self.additions) if self.additions else nullcontext():
                    seen = reached(self.entrance, lambda: self.model(*given))
            except (CaptumVitError, torch.OutOfMemoryError):
                raise
            except MISFITS as error:
                raise UnsupportedModelError(
                    "A model that runs any number of samples, whatever their numbers are.",
                    f"{type(self.model).__name__}, which refuses {len(rows)} of {batch}: {error}",
                    "a model that fixes neither the batch size nor the range of its input.",
                ) from error
        if seen is None or seen.dim() != 3 or len(seen) != len(rows):
            got = "none" if seen is None else f"shape {tuple(seen.shape)} for {len(rows)} samples"
            hint = "a model whose blocks are given (B, N, D), batch first."
            raise TraceError("Tokens (B, N, D) that enter the first block.", got, hint)
        return seen

    def in_portions(self, rows: Sequence[Tensor]) -> Tensor:  # shape: (R, N, D)
        """Many rows (1, ...), some at a time."""
        size = max(1, AT_ONCE // self.sample.numel())
        return torch.cat([self.tokens(torch.cat(list(rows[i : i + size]))) for i in range(0, len(rows), size)])


def _rows_of(x: Any, times: int, batch: int) -> Any:
    return x[:1].expand(times, *x.shape[1:]) if is_of_each_sample(x, batch) else x
