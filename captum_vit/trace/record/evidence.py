"""Positive evidence followed from block to block, from the row with which the head reads the tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_vit.trace.modes.by_rows import Rows, weighing
from captum_vit.trace.record.record import Record

Of = Callable[[Tensor, Tensor], Tensor]
"""Some rows of A and of its gradient G (B, H, R, N) -> those of matrices M_h, (B, H, R, N), or of one, (B, 1, R, N)."""


@dataclass(frozen=True)
class Update:
    """What a sub-layer adds to the identity: a matrix M, of which products are enough.

    Args:
        back: a row (B, 1, N) times M. Where M is made of attention, that is given too; None if no gradient reaches it.
        forth: M times a column (B, N, 1), likewise.
        layer: the block of whose attention M is made; None if it is made of nothing of the kind.
        mixes: whether M leads from token to token; it is diagonal otherwise.
    """

    back: Callable[[Tensor, Rows | None], Tensor]
    forth: Callable[[Tensor, Rows | None], Tensor]
    layer: int | None = None
    mixes: bool = True


def positive_evidence(A: Tensor, G: Tensor) -> Tensor:
    r""":math:`(\nabla A_h \odot A_h)^+`"""
    return (G * A).clamp_(min=0)


def of_attention(
    layer: int,
    of: Of = positive_evidence,
    W: Tensor | None = None,  # shape: (B, H, N) or (B, 1, N), weights of the columns
) -> Update:
    r"""The evidence of a block, :math:`M = E_h[M_h(A_h, \nabla A_h)\, W_h]`."""

    def back(row: Tensor, attention: Rows | None) -> Tensor:
        by_head = times(row, attention, of)
        return (by_head if W is None else by_head * W.unsqueeze(2)).mean(1)

    def forth(column: Tensor, attention: Rows | None) -> Tensor:
        by_head = column.unsqueeze(1) if W is None else W.unsqueeze(3) * column.unsqueeze(1)
        added = torch.zeros_like(column)
        for rows, A, G in () if attention is None else attention.chunks():
            added[:, rows] = (of(A, G) @ by_head.to(A)).mean(1)
        return added

    return Update(back, forth, layer)


def of_matrix(make: Callable[[], Tensor]) -> Update:
    """M (B, N, N), made when it is needed."""
    return Update(lambda row, _: row @ make(), lambda column, _: make() @ column)


def of_weights(
    w: Tensor,  # shape: (B, N)
) -> Update:
    """M = diag(w)."""
    return Update(lambda row, _: row * w.unsqueeze(1), lambda column, _: column * w.unsqueeze(2), mixes=False)


def times(
    row: Tensor,  # shape: (B, 1, N)
    attention: Rows | None,
    of: Of,
) -> Tensor:  # shape: (B, H, 1, N), or (B, 1, 1, N)
    """A row times matrices of a block's attention, in one run through its rows; those that weigh nothing are left."""
    total = torch.zeros_like(row).unsqueeze(1)
    for rows, A, G in () if attention is None else attention.chunks():
        first, end = weighing(row[..., rows])
        if first < end:
            some = slice(first, end)
            total = total + row[:, None, :, rows][..., some].to(A) @ of(A[:, :, some], G[:, :, some])
    return total


def upwards(found: Record, updates: Sequence[Update], take: Callable[[Update, Rows | None], None]) -> None:
    """Take each update with its attention, from the last to the first: in the backward pass, where it has not run."""
    rest = list(updates)

    def look(layer: int, attention: Rows) -> None:
        while rest and (rest[-1].layer is None or rest[-1].layer >= layer):
            update = rest.pop()
            take(update, attention if update.layer == layer else None)

    if any(update.layer is not None for update in updates):
        found.backward(look)
    while rest:
        take(rest.pop(), None)


def followed(
    found: Record,
    updates: Sequence[Update],  # from the first to the last
    start: Tensor | None = None,  # shape: (B, N), the diagonal of C^0
) -> Tensor:  # shape: (B, N)
    r"""The head's row r of :math:`C = \prod_l (I + M_l)\,C^0`: one more layer behind the others.

    Of a head that reads one row, such as CLS, that is the row of C. Where it reads several, C is split into the paths
    along the residual stream and those through attention, :math:`C = O + T`, and each row of both is scaled:

    .. math:: S = r\,(I + \mathrm{diag}(T \mathbf 1)^{-1}\,T)

    which is what the rules of Generic Attention-model Explainability (equations 8 and 9) do where a relevance matrix
    is used by a further layer. Unscaled, the paths without attention, which know nothing of the target in an early
    block, or those with it, may drown the others, by the size of the score and the depth of the model.
    """
    row = found.row  # shape: (B, 1, N)
    start = torch.ones_like(row.squeeze(1)) if start is None else start
    if not found.several.any():

        def step(update: Update, attention: Rows | None) -> None:
            nonlocal row
            row = row + update.back(row, attention)

        upwards(found, updates, step)
        return row.squeeze(1) * start
    found.backward()
    attention = [None if update.layer is None else found.attention(update.layer) for update in updates]
    by_attention, own = torch.zeros_like(start.unsqueeze(2)), start.unsqueeze(2)  # shapes: (B, N, 1)
    for update, rows in zip(updates, attention, strict=True):
        by_attention, own = _extended(by_attention, own, update.forth, rows, update.mixes)
    scaled = _scaled(found, row, by_attention)
    by_attention, own = torch.zeros_like(row), scaled
    for update, rows in reversed(list(zip(updates, attention, strict=True))):
        by_attention, own = _extended(by_attention, own, update.back, rows, update.mixes)
    own = torch.where(found.several.unsqueeze(2), row, own * start.unsqueeze(1))
    return (by_attention * start.unsqueeze(1) + own).squeeze(1)


def maps_of_updates(found: Record, updates: Sequence[Update]) -> list[Tensor]:  # shape of each: (B, N)
    r"""For each block its own map by itself, :math:`r M_l`; their sum is PLUS.

    Where the head reads several rows, the sum of all M is scaled as in :func:`followed`, and what the head itself
    reads is in the last map.
    """
    row = found.row
    if not found.several.any():
        return maps_of_row(found, updates, row)
    ones = torch.ones_like(row.mT)
    totals: list[Tensor] = []
    upwards(found, updates, lambda update, attention: totals.append(update.forth(ones, attention)))
    maps = maps_of_row(found, updates, _scaled(found, row, torch.stack(totals[::-1]).sum(0)))
    return [*maps[:-1], maps[-1] + row.squeeze(1) * found.several]


def maps_of_row(found: Record, updates: Sequence[Update], row: Tensor) -> list[Tensor]:  # shape of each: (B, N)
    """The same row (B, 1, N) times the matrix of each block."""
    maps: list[Tensor] = []
    upwards(found, updates, lambda update, attention: maps.append(update.back(row, attention).squeeze(1)))
    return maps[::-1]


def _extended(
    by_attention: Tensor,
    own: Tensor,
    times_matrix: Callable[[Tensor, Rows | None], Tensor],
    attention: Rows | None,
    mixes: bool,
) -> tuple[Tensor, Tensor]:
    """Both kinds of paths with one more update."""
    if mixes:
        return by_attention + times_matrix(by_attention + own, attention), own
    return by_attention + times_matrix(by_attention, attention), own + times_matrix(own, attention)


def _scaled(
    found: Record,
    row: Tensor,  # shape: (B, 1, N)
    total: Tensor,  # shape: (B, N, 1), what leads from each row to all tokens
) -> Tensor:  # shape: (B, 1, N)
    """A row over what leads on from each of its tokens, in samples in which several are read."""
    divisor = torch.where(total > 0, total, torch.inf).mT
    return torch.where(found.several.unsqueeze(2), row / divisor, row)
