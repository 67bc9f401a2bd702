"""What is made of one recorded pass: products with gradients, and the head's row carried through the blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from captum_vit.trace.record.record import Record

Carry = Callable[[Tensor, int], Tensor]
"""A row (B, 1, N) and a block -> the row times that block's map, (B, 1, N)."""


def gradient_x_input(found: Record) -> list[Tensor]:
    """At the input of every recorded block, the tokens times the gradient: one (B, N, D) for each."""
    return [found.seen["tokens"][layer] * found.grads["tokens"][layer] for layer in found.layers]


def rolled_out(
    found: Record,
    carry: Carry,
    stream: float = 1.0,
    branch: float = 1.0,
    layers: Sequence[int] | None = None,  # of those recorded; all of them by default
) -> Tensor:  # shape: (B, N)
    r"""The head's row of :math:`\prod_l (s I + b M_l)`, from the last block to the first: a row times matrices."""
    row = found.row  # shape: (B, 1, N)
    for layer in reversed(found.layers if layers is None else layers):
        row = stream * row + branch * carry(row, layer)
    return row.squeeze(1)


def maps_of_layers(
    found: Record, carry: Carry, layers: Sequence[int] | None = None, row: Tensor | None = None
) -> list[Tensor]:  # shape of each: (B, N)
    """For each block its own map by itself, seen from the head's row; PLUS sums them."""
    row = found.row if row is None else row
    return [carry(row, layer).squeeze(1) for layer in (found.layers if layers is None else layers)]
