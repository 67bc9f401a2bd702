"""Which part of a picture each token reads: spelt by gradients, or found by changing a part and seeing who moves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_vit.trace.layout.embedding import Embedding

ROUNDINGS = 16  # what is no larger, in units of the precision and of the largest entry, is zero


@dataclass(frozen=True)
class Reach:
    """What the tokens read, along each dimension of an input but the batch.

    Args:
        placed: (N,) which tokens depend on the input.
        first: (P, A) of each of those its first step along each dimension.
        behind: (P, A) the step behind its last.
        centres: (P, A) the middle, by one reckoning or several.
        read: (A, 2) first step that any token reads, and the one behind the last.
        apart: no entry is read by two tokens.
    """

    placed: Tensor
    first: Tensor
    behind: Tensor
    centres: tuple[Tensor, ...]
    read: Tensor
    apart: bool


def reach_of(
    embedding: Embedding,
    plain: Tensor,  # shape: (1, N, D), its tokens for the sample
) -> Reach:
    """Costs the embedding twice and 2 log2 N gradients, where tokens read parts of their own.

    Where they overlap or the embedding lets no gradient through, the embedding of some rows for every token.
    """
    x = embedding.sample
    changed = _changed(x)
    placed = moved(embedding.tokens(changed) - plain, plain)[0]
    spelt = _spelt(embedding, x)
    if spelt is None:
        return _by_moving(embedding, plain, placed, None)
    token, read = spelt
    single = token >= 0
    found, number = token[single].unique(return_inverse=True)
    extent = torch.stack([_ends(read, axis) for axis in range(read.dim())])
    if not torch.equal(found, placed.nonzero().flatten()):
        return _by_moving(embedding, plain, placed, extent)
    first, behind = _bounds(single, number, len(found))
    return Reach(placed, first, behind, ((first + behind) / 2,), extent, bool((single == read).all()))


def _changed(x: Tensor) -> Tensor:
    """Every entry another."""
    pattern = torch.arange(x.numel(), device=x.device).mul(1.7).cos().view_as(x)
    return x + _scale(x) * (1.5 + pattern).to(x)


def _scale(x: Tensor) -> Tensor:
    return x.float().std().nan_to_num().clamp_min(0.1).to(x)


def moved(
    difference: Tensor,  # shape: (R, N, D)
    tokens: Tensor,  # shape: (1, N, D)
) -> Tensor:  # shape: (R, N)
    return difference.abs().amax(-1) > ROUNDINGS * torch.finfo(tokens.dtype).eps * tokens.abs().amax()


# -- by gradients ---------------------------------------------------------------------------------------


@torch.enable_grad()
def _spelt(embedding: Embedding, x: Tensor) -> tuple[Tensor, Tensor] | None:  # shapes: those of a sample
    """Of each entry the one token that reads it, or -1; and whether any does. None where no gradient arrives.

    An entry is read by token j alone if, for every binary digit, it has a gradient of the tokens whose number has that
    digit set, or of those that have it clear, and not of both; and then the digits spell j.
    """
    leaf = x.clone().requires_grad_()
    tokens = embedding.tokens(leaf)
    if not tokens.requires_grad:
        return None
    mixture = torch.arange(tokens.shape[-1], device=x.device).mul(1.7).add(0.3).cos().to(tokens)
    seen = tokens[0] @ mixture  # shape: (N,)
    numbers = torch.arange(len(seen), device=x.device)
    token, single, read = torch.zeros_like(x[0], dtype=torch.long), None, torch.zeros_like(x[0], dtype=torch.bool)
    for digit in range(max(1, (len(seen) - 1).bit_length())):
        is_set = (numbers >> digit & 1).bool()
        with_it, without = (_has_gradient(seen[some].sum(), leaf) for some in (is_set, ~is_set))
        token += with_it.long() << digit
        read |= with_it | without
        single = with_it ^ without if single is None else single & (with_it ^ without)
    return (token.masked_fill(~single, -1), read) if single is not None and read.any() else None


def _has_gradient(score: Tensor, leaf: Tensor) -> Tensor:  # shape: that of a sample
    (grad,) = torch.autograd.grad(score, leaf, retain_graph=True, allow_unused=True)
    if grad is None:
        return torch.zeros_like(leaf[0], dtype=torch.bool)
    size = grad[0].abs()
    return size > ROUNDINGS * torch.finfo(grad.dtype).eps * size.amax()


def _bounds(single: Tensor, number: Tensor, n: int) -> tuple[Tensor, Tensor]:  # shapes: (n, A)
    """From the first step of each token's entries to behind the last."""
    first, behind = [], []
    for steps in single.nonzero().unbind(1):
        start = steps.new_zeros(n)
        first.append(start.scatter_reduce(0, number, steps, "amin", include_self=False))
        behind.append(start.scatter_reduce(0, number, steps, "amax", include_self=False) + 1)
    return torch.stack(first, 1), torch.stack(behind, 1)


def _ends(read: Tensor, axis: int) -> Tensor:  # shape: (2,)
    steps = read.movedim(axis, 0).flatten(1).any(1).nonzero().flatten()
    return torch.stack([steps[0], steps[-1] + 1])


# -- by moving ------------------------------------------------------------------------------------------


def _by_moving(
    embedding: Embedding,
    plain: Tensor,  # shape: (1, N, D)
    placed: Tensor,  # shape: (N,)
    extent: Tensor | None,  # shape: (A, 2), of what is read, where that is known
) -> Reach:
    """All that lies behind a cut is changed, for cuts along every dimension.

    A token starts where it begins to move less than by all, and ends where it no longer moves; its centre is the cut
    behind which half of it lies, by the square of how far it moves. Without the extent, from a gradient, cuts are one
    step apart. The change is the same for all pixels of a picture, so that it moves every token alike.
    """
    x = embedding.sample
    leading = x.shape[1:-2]
    changed = x + _scale(x) * (1.5 + torch.arange(leading.numel(), device=x.device).mul(1.7).cos()).view(
        *leading, 1, 1
    ).to(x)
    first, behind, centre = [], [], []
    for axis, size in enumerate(x.shape[1:]):
        pitch = (
            max(1, int((x[0].numel() / max(size, 1) / max(int(placed.sum()), 1)) ** 0.5) // 4)
            if extent is not None
            else 1
        )
        cuts = torch.arange(0, size + pitch, pitch, device=x.device).clamp_max(size)
        steps = torch.arange(size, device=x.device).view(-1, *[1] * (x.dim() - axis - 2))
        rows = [torch.where(steps >= cut, changed, x) for cut in cuts]
        tokens = embedding.in_portions(rows)[:, placed]  # shape: (cuts, P, D)
        here, all_of_it = plain[:, placed], tokens[:1]
        far = (tokens - here).double().square().sum(-1)
        share = far / far[:1].clamp_min(1e-30)  # shape: (cuts, P), from 1 to 0
        before = cuts[(moved(tokens - all_of_it, plain).long().argmax(0) - 1).clamp_min(0)]
        last = moved(tokens - here, plain).flip(0).long().argmax(0)
        after = cuts[len(cuts) - last.clamp_min(1)]
        first.append(before)
        behind.append(after)
        centre.append(_half(share, cuts))
    low, high = torch.stack(first, 1), torch.stack(behind, 1)
    read = torch.stack([low.amin(0), high.amax(0)], 1) if extent is None else extent
    centres = (low + high) / 2, torch.stack(centre, 1)
    return Reach(placed, low, high, centres, read, extent is None and _are_apart(low, high))


def _half(
    share: Tensor,  # shape: (cuts, P)
    cuts: Tensor,
) -> Tensor:  # shape: (P,)
    """Where a share falls below one half, between the cuts around it."""
    below = (share < 0.5).long().argmax(0).clamp_min(1)
    high, low = share.gather(0, below[None] - 1)[0], share.gather(0, below[None])[0]
    start, end = cuts[below - 1].double(), cuts[below].double()
    return start + (end - start) * (high - 0.5) / (high - low).clamp_min(1e-12)


def _are_apart(first: Tensor, behind: Tensor) -> bool:
    """Whether no two boxes share a step along all dimensions."""
    shared = ((first[:, None] < behind[None]) & (first[None] < behind[:, None])).all(-1)
    return int(shared.sum()) == len(first)
