"""One backward pass from the score to the blocks, which shows each attention on its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from captum_vit.errors import TraceError
from captum_vit.trace.modes.by_rows import ByRows, Shown
from captum_vit.trace.run.state import NO_CHECKPOINTS
from captum_vit.trace.run.watch import refuse_no_way_back

Look = Callable[[int, ByRows], None]
Grads = dict[str, dict[int, Tensor]]


@dataclass
class BackwardPass:
    """What it starts from, and where it leads.

    Attributes:
        score: (B,), with its graph.
        wanted: the tensors whose gradient is wanted, by kind and block.
        cast: to the precision that is wanted.
        by_rows: the attention of the blocks of which rows are shown.
        shown: where they are shown.
    """

    score: Tensor
    wanted: dict[str, dict[int, Tensor]]
    cast: Callable[[Tensor], Tensor]
    by_rows: dict[int, ByRows] = field(default_factory=dict)
    shown: Shown = field(default_factory=Shown)

    def run(self, look: Look | None = None) -> Grads:
        """Gradients of the score; ``look`` is called with each attention by rows, from the last block to the first.

        Raises:
            TraceError: no gradient arrives, or a block stands outside of the graph.
        """
        total = self.score.sum()
        if not total.requires_grad:  # a model that turns gradients off leaves them off behind it
            raise TraceError(
                "A score that depends on the tokens with a gradient.",
                "an output without a graph",
                "a model whose forward does not detach, or run under no_grad or inference_mode by itself; under a rule "
                "that holds softmax constant, the scores before a softmax at the end.",
            )
        places = [(kind, layer) for kind, row in self.wanted.items() for layer in row]
        wanted = [self.wanted[kind][layer] for kind, layer in places]
        tracked = [(kind, layer, x.requires_grad) for (kind, layer), x in zip(places, wanted, strict=True)]
        tracked += [("probs", layer, rows.tracked) for layer, rows in self.by_rows.items()]
        for kind, layer, is_tracked in tracked:
            if not is_tracked:
                raise TraceError("A graph through every block.", f"none at the {kind} of block {layer}", NO_CHECKPOINTS)
        reached: list[int] = []
        self.shown.look = self._in_order(look, reached) if self.by_rows else None
        try:
            *grads, _ = torch.autograd.grad(total, [*wanted, self.shown.anchor], allow_unused=True)
        except RuntimeError as error:
            refuse_no_way_back(error)
            raise
        finally:
            self.shown.look = None
        if not reached and all(g is None for g in grads):
            raise TraceError("Gradients at the blocks.", "none arrived", "a target that depends on these blocks.")
        found: Grads = {kind: {} for kind in self.wanted}
        for (kind, layer), x, g in zip(places, wanted, grads, strict=True):
            found[kind][layer] = self.cast(torch.zeros_like(x) if g is None else g)
        for layer in self.by_rows.keys() - set(reached):  # none of their rows is reached
            self.by_rows[layer].grad = torch.zeros_like(self.by_rows[layer].values)
            if look is not None:
                look(layer, self.by_rows[layer])
        return found

    def _in_order(self, look: Look | None, reached: list[int]) -> Callable[[ByRows, ByRows], None]:
        layer_of = {rows: layer for layer, rows in self.by_rows.items()}

        def show(of: ByRows, rows: ByRows) -> None:
            layer = layer_of[of]
            if reached and reached[-1] <= layer:
                raise TraceError(
                    "Gradients that reach the blocks from the last to the first.",
                    f"block {layer} after block {reached[-1]}",
                    "captum_vit.attention_memory(math.inf), which needs no order.",
                )
            reached.append(layer)
            if look is not None:
                look(layer, rows)

        return show
