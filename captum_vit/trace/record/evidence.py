"""Positive evidence followed from block to block, from the row with which the head reads the tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_vit.trace.record.record import Record


@dataclass(frozen=True)
class Update:
    """What a sub-layer adds to the identity: a matrix M, of which products are enough.

    Args:
        back: a row (B, 1, N) times M.
        forth: M times a column (B, N, 1).
        mixes: whether M leads from token to token; it is diagonal otherwise.
    """

    back: Callable[[Tensor], Tensor]
    forth: Callable[[Tensor], Tensor]
    mixes: bool = True


def of_attention(
    found: Record,
    layer: int,
    W: Tensor | None = None,  # shape: (B, H, N), weights of the columns
) -> Update:
    r"""The positive evidence of a block, :math:`M = E_h[(\nabla A_h \odot A_h)^+ W_h]`."""

    def evidence() -> Tensor:  # shape: (B, H, N, N)
        return (found.grads["probs"][layer] * found.seen["probs"][layer]).clamp_(min=0)

    def back(row: Tensor) -> Tensor:
        by_head = row.unsqueeze(1) @ evidence()  # shape: (B, H, 1, N)
        return (by_head if W is None else by_head * W.unsqueeze(2)).mean(1)

    def forth(column: Tensor) -> Tensor:
        by_head = column.unsqueeze(1) if W is None else W.unsqueeze(3) * column.unsqueeze(1)
        return (evidence() @ by_head).mean(1)

    return Update(back, forth)


def of_matrix(make: Callable[[], Tensor]) -> Update:
    """M (B, N, N), made when it is needed."""
    return Update(lambda row: row @ make(), lambda column: make() @ column)


def of_weights(
    w: Tensor,  # shape: (B, N)
) -> Update:
    """M = diag(w)."""
    return Update(lambda row: row * w.unsqueeze(1), lambda column: column * w.unsqueeze(2), mixes=False)


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
        for update in reversed(updates):
            row = row + update.back(row)
        return row.squeeze(1) * start
    by_attention, own = torch.zeros_like(start.unsqueeze(2)), start.unsqueeze(2)  # shapes: (B, N, 1)
    for update in updates:
        by_attention, own = _extended(by_attention, own, update.forth, update.mixes)
    scaled = _scaled(found, row, by_attention)
    by_attention, own = torch.zeros_like(row), scaled
    for update in reversed(updates):
        by_attention, own = _extended(by_attention, own, update.back, update.mixes)
    own = torch.where(found.several.unsqueeze(2), row, own * start.unsqueeze(1))
    return (by_attention * start.unsqueeze(1) + own).squeeze(1)


def maps_of_updates(found: Record, updates: Sequence[Update]) -> list[Tensor]:  # shape of each: (B, N)
    r"""For each block its own map by itself, :math:`r M_l`; their sum is PLUS.

    Where the head reads several rows, the sum of all M is scaled as in :func:`followed`, and what the head itself
    reads is in the last map.
    """
    row = found.row
    if not found.several.any():
        return [update.back(row).squeeze(1) for update in updates]
    ones = torch.ones_like(row.mT)
    scaled = _scaled(found, row, torch.stack([update.forth(ones) for update in updates]).sum(0))
    maps = [update.back(scaled).squeeze(1) for update in updates]
    return [*maps[:-1], maps[-1] + row.squeeze(1) * found.several]


def _extended(
    by_attention: Tensor, own: Tensor, times: Callable[[Tensor], Tensor], mixes: bool
) -> tuple[Tensor, Tensor]:
    """Both kinds of paths with one more update."""
    if mixes:
        return by_attention + times(by_attention + own), own
    return by_attention + times(by_attention), own + times(own)


def _scaled(
    found: Record,
    row: Tensor,  # shape: (B, 1, N)
    total: Tensor,  # shape: (B, N, 1), what leads from each row to all tokens
) -> Tensor:  # shape: (B, 1, N)
    """A row over what leads on from each of its tokens, in samples in which several are read."""
    divisor = torch.where(total > 0, total, torch.inf).mT
    return torch.where(found.several.unsqueeze(2), row / divisor, row)
