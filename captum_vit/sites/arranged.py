"""Tensors of any shape as tokens (B, N, D), and back: cells in the order of their axes, features last."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Visit = Callable[[Tensor], Tensor | None]
"""Sees the tensor at a site; returns another one to put in its place, or None to leave it."""


def as_tokens(x: Tensor, features: int) -> Tensor:  # shape: (B, N, D)
    """All axes but the first and that of the features become one."""
    return x.movedim(features, -1).flatten(1, -2)


def from_tokens(tokens: Tensor, like: Tensor, features: int) -> Tensor:
    """Tokens (B, N, D) in the shape of another tensor, but for the size of the batch."""
    shape = like.movedim(features, -1).shape
    return tokens.reshape(len(tokens), *shape[1:]).movedim(-1, features)


def of_tokens(visit: Visit, features: int) -> Visit:
    """A visit that sees tokens, of a place whose tensor has its features on this axis."""

    def visited(x: Tensor) -> Tensor | None:
        tokens = as_tokens(x, features)
        new = visit(tokens)
        if new is None and not tokens.requires_grad:
            return None
        put = from_tokens(tokens if new is None else new, x, features)
        return put.clone()  # a model may write over it

    return visited
