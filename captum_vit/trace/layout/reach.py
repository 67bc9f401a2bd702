"""Which part of a picture each token reads: spelt by gradients, or found by changing parts and seeing who moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from captum_vit.errors import UnsupportedModelError
from captum_vit.trace.layout.embedding import Embedding

ROUNDINGS = 16  # of its largest entry, by which a token may differ in a batch of another size
DRAWS, NOISE = 16, 0.1  # of noise, in units of the picture's standard deviation
TWICE, SEEN = 2.0, 1e-3  # how much more a token moves with the half in which it lies not; the least that counts


@dataclass(frozen=True)
class Reach:
    """What the tokens read, along each dimension of an input but the batch.

    Args:
        placed: (N,) which tokens depend on the input.
        first: (P, A) of each of those its first step along each dimension.
        behind: (P, A) the step behind its last.
        centre: (P, A) the middle of what it reads.
        read: (A, 2) first step that any token reads, and the one behind the last.
        apart: no entry is read by two tokens.
        box: of one of the P tokens the first step that it reads along each dimension, and that behind the last (2, A),
            where it shares them with others.
    """

    placed: Tensor
    first: Tensor
    behind: Tensor
    centre: Tensor
    read: Tensor
    apart: bool
    box: Callable[[int], Tensor]


def reach_of(
    embedding: Embedding,
    plain: Tensor,  # shape: (1, N, D), its tokens for the sample
) -> Reach | None:
    """What each token reads; None where no token depends on the input.

    Measured on the sample with its pixels mixed, so that a region that is white, or black, hides no token.

    Costs the embedding twice and 2 log2 N gradients, where every token reads something that no other reads.
    Where it does not, 3 x 16 embeddings more; where no gradient arrives, one for each row and column of the picture.
    """
    x = embedding.sample
    embedding = replace(embedding, shown=mixed(x))
    leaf = embedding.sample.clone().requires_grad_()
    tokens = embedding.tokens(leaf)
    moving = tokens.detach()
    placed = (moving != plain).any(-1)[0]
    if not placed.any():
        return None
    spelt = single_readers(tokens, leaf)
    if spelt is None:
        return _by_moving(embedding, moving, placed)
    token, read = spelt
    single = token >= 0
    found, number = token[single].unique(return_inverse=True)
    extent = torch.stack([_ends(read, axis) for axis in range(read.dim())])
    box = partial(_box, tokens, leaf, placed.nonzero().flatten().tolist())
    if torch.equal(found, placed.nonzero().flatten()):
        first, behind = bounds(single, number, len(found))
        apart = bool((single == read).all())
        _refuse_order_of_content(embedding, x, plain, token)
        return Reach(placed, first, behind, (first + behind) / 2, extent, apart, box)
    if _is_read_outside(embedding, moving, extent):
        return _by_moving(embedding, moving, placed)
    parts = [_behind_cuts(embedding, moving, placed, axis) for axis in range(x.dim() - 3)]
    first, behind = (
        torch.stack([*(part[i] for part in parts), *extent[-2:, i : i + 1].expand(-1, int(placed.sum()))], 1)
        for i in (0, 1)
    )
    centre = _by_noise(embedding, moving, placed, (first + behind) / 2)
    _refuse_halves_of_content(replace(embedding, shown=None), plain, placed, centre)
    return Reach(placed, first, behind, centre, extent, False, box)


def moved(
    difference: Tensor,  # shape: (R, N, D)
    tokens: Tensor,  # shape: (1, N, D)
) -> Tensor:  # shape: (R, N)
    """Which tokens are others, by more than rounding."""
    return difference.abs().amax(-1) > ROUNDINGS * torch.finfo(tokens.dtype).eps * tokens.abs().amax(-1)


def mixed(x: Tensor) -> Tensor:
    """The picture's own pixels in random order, each changed a little, some up and some down."""
    order = torch.randperm(x[0, ..., :, :].flatten(-2).shape[-1], generator=torch.Generator().manual_seed(0))
    change = torch.arange(x.numel(), device=x.device).mul(1.7).cos().mul(1.5).add(0.5).view_as(x)
    return x.flatten(-2)[..., order.to(x.device)].view_as(x) + _scale(x) * change.to(x)


def _refuse_order_of_content(
    embedding: Embedding,
    x: Tensor,  # shape: (1, ...), the sample
    plain: Tensor,  # shape: (1, N, D), its tokens
    token: Tensor,  # shape: that of a sample; the only token that reads an entry, or -1
) -> None:
    """Other pixels for some tokens move those, and no others."""
    chosen = torch.randint(2, plain.shape[1:2], generator=torch.Generator().manual_seed(0)).bool().to(x.device)
    rows = torch.where(chosen[token.clamp_min(0)] & (token >= 0), embedding.sample, x)
    others = moved(embedding.tokens(rows) - plain, plain)[0] & ~chosen
    if others.any():
        raise _order_of_content(int(others.nonzero()[0]))


def _refuse_halves_of_content(
    embedding: Embedding,
    plain: Tensor,  # shape: (1, N, D), its tokens for the sample
    placed: Tensor,  # shape: (N,)
    centre: Tensor,  # shape: (P, A), found in another picture
) -> None:
    """Of tokens that overlap, those in one half of the sample move with noise there, more than with noise in the other.

    Those in the middle third may move with both; so may tokens that hardly move.
    """
    x = embedding.sample
    for axis in (-2, -1):
        size = x.shape[axis]
        first = (torch.arange(size, device=x.device) < size // 2).to(x).view(-1, *[1] * (-1 - axis))
        near, far = (_energy(embedding, plain, placed, half) for half in (first, 1 - first))
        low, high = centre[:, axis] < size / 3, centre[:, axis] > size * 2 / 3
        against = (low & (far > TWICE * near)) | (high & (near > TWICE * far))
        wrong = against & (near + far > SEEN * (near + far).max())
        if wrong.any():
            raise _order_of_content(int(placed.nonzero().flatten()[wrong][0]))


def _order_of_content(token: int) -> UnsupportedModelError:
    return UnsupportedModelError(
        "Tokens in an order that does not depend on the picture.",
        f"token {token}, which moves with pixels that it does not read in another picture",
        "the model without sorting or choosing of tokens before its blocks; or layer=0, where tokens meet each other "
        "between stages.",
    )


def _is_read_outside(
    embedding: Embedding,
    plain: Tensor,  # shape: (1, N, D)
    extent: Tensor,  # shape: (A, 2)
) -> bool:
    """Whether tokens depend on what lies outside of all that has a gradient."""
    x = embedding.sample
    outside = torch.ones_like(x, dtype=torch.bool)
    inside = outside[0]
    for axis, (start, end) in enumerate(extent.tolist()):
        inside = inside.narrow(axis, start, end - start)
    inside.fill_(False)
    if not outside.any():
        return False
    return bool(moved(embedding.tokens(torch.where(outside, x + _scale(x), x)) - plain, plain).any())


def _scale(x: Tensor) -> Tensor:
    return x.float().std().nan_to_num().clamp_min(0.1).to(x)


# -- by gradients ---------------------------------------------------------------------------------------


@torch.enable_grad()
def single_readers(
    tokens: Tensor,  # shape: (1, N, D)
    leaf: Tensor,  # shape: (1, ...), in the graph that they hang on
) -> tuple[Tensor, Tensor] | None:  # shapes: those of a sample
    """Of each entry the one token that reads it, or -1; and whether any does. None where no gradient arrives.

    An entry is read by token j and no other if, for every binary digit, it has a gradient of the tokens whose number
    has that digit set, or of those that have it clear, and not of both; and then the digits spell j.
    """
    if not tokens.requires_grad:
        return None
    seen = tokens[0] @ _mixture(tokens)  # shape: (N,)
    numbers = torch.arange(len(seen), device=leaf.device)
    read = torch.zeros_like(leaf[0], dtype=torch.bool)
    token, single = read.long(), ~read
    for digit in range(max(1, (len(seen) - 1).bit_length())):
        is_set = (numbers >> digit & 1).bool()
        with_it, without = (_has_gradient(seen[some].sum(), leaf) for some in (is_set, ~is_set))
        token += with_it.long() << digit
        read |= with_it | without
        single &= with_it ^ without
    return (token.masked_fill(~single, -1), read) if read.any() else None


def _has_gradient(score: Tensor, leaf: Tensor) -> Tensor:  # shape: that of a sample
    (grad,) = torch.autograd.grad(score, leaf, retain_graph=True, allow_unused=True)
    if grad is None:
        return torch.zeros_like(leaf[0], dtype=torch.bool)
    size = grad[0].abs()
    return size > torch.finfo(grad.dtype).eps * size.amax()


def bounds(single: Tensor, number: Tensor, n: int) -> tuple[Tensor, Tensor]:  # shapes: (n, A)
    """From the first step of each token's entries to behind the last."""
    first, behind = [], []
    for steps in single.nonzero().unbind(1):
        start = steps.new_zeros(n)
        first.append(start.scatter_reduce(0, number, steps, "amin", include_self=False))
        behind.append(start.scatter_reduce(0, number, steps, "amax", include_self=False) + 1)
    return torch.stack(first, 1), torch.stack(behind, 1)


@torch.enable_grad()
def _box(tokens: Tensor, leaf: Tensor, numbers: list[int], i: int) -> Tensor:  # shape: (2, A)
    read = _has_gradient((tokens[0, numbers[i]] @ _mixture(tokens)), leaf)
    return torch.stack([_ends(read, axis) for axis in range(read.dim())], 1)


def _mixture(tokens: Tensor) -> Tensor:  # shape: (D,)
    return torch.arange(tokens.shape[-1], device=tokens.device).mul(1.7).add(0.3).cos().to(tokens)


def _ends(read: Tensor, axis: int) -> Tensor:  # shape: (2,)
    steps = read.movedim(axis, 0).flatten(1).any(1).nonzero().flatten()
    return torch.stack([steps[0], steps[-1] + 1])


# -- by moving ------------------------------------------------------------------------------------------


def _by_moving(
    embedding: Embedding,
    plain: Tensor,  # shape: (1, N, D)
    placed: Tensor,  # shape: (N,)
) -> Reach:
    """Where no gradient arrives."""
    bounds = [_behind_cuts(embedding, plain, placed, axis) for axis in range(embedding.sample.dim() - 1)]
    first, behind = (torch.stack(ends, 1) for ends in zip(*bounds, strict=True))
    apart = _are_apart(first, behind)
    middle = (first + behind) / 2
    centre = middle if apart else _by_noise(embedding, plain, placed, middle)
    extent = torch.stack([first.amin(0), behind.amax(0)], 1)
    return Reach(placed, first, behind, centre, extent, apart, lambda i: torch.stack([first[i], behind[i]]))


def _behind_cuts(embedding: Embedding, plain: Tensor, placed: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The first step (P,) that each token reads along a dimension, and the one behind the last.

    All that lies behind a cut is changed, alike for all pixels of a picture: a token begins where it begins to move
    less than by all, and ends where it no longer moves.
    """
    x = embedding.sample
    leading, size = x.shape[1:-2], x.shape[axis + 1]
    change = _scale(x) * torch.arange(leading.numel(), device=x.device).mul(1.7).cos().add(1.5).to(x)
    steps = torch.arange(size, device=x.device).view(-1, *[1] * (x.dim() - axis - 2))
    rows = [torch.where(steps >= cut, x + change.view(*leading, 1, 1), x) for cut in range(size + 1)]
    tokens = embedding.in_portions(rows)[:, placed]  # shape: (size + 1, P, D)
    less, still = moved(tokens - tokens[:1], plain[:, placed]), moved(tokens - plain[:, placed], plain[:, placed])
    return less.long().argmax(0) - 1, still.sum(0)


def _by_noise(
    embedding: Embedding,
    plain: Tensor,  # shape: (1, N, D)
    placed: Tensor,  # shape: (N,)
    centre: Tensor,  # shape: (P, A)
) -> Tensor:  # shape: (P, A)
    r"""Centres along the two dimensions of a picture: of what tokens read, weighed by the squares of their slopes.

    Of noise with independent entries of size :math:`\sqrt{h_p}` at pixel p, token j moves by
    :math:`\mathrm E|\Delta_j|^2 = \sum_p h_p |\partial T_j / \partial x_p|^2`; with the row or column of p as
    :math:`h_p`, over that with 1, this is the centre. What a norm lets through from the whole picture hardly counts.
    """
    x, centre = embedding.sample, centre.clone().double()
    whole = _energy(embedding, plain, placed, x.new_ones(()))
    for axis in (-2, -1):
        position = (torch.arange(x.shape[axis], device=x.device) + 0.5) / x.shape[axis]
        weight = position.sqrt().to(x).view(-1, *[1] * (-1 - axis))
        centre[:, axis] = _energy(embedding, plain, placed, weight) / whole * x.shape[axis]
    return centre


def _energy(
    embedding: Embedding,
    plain: Tensor,  # shape: (1, N, D)
    placed: Tensor,  # shape: (N,)
    weight: Tensor,  # that of the noise, as wide as the picture, or one for all of it
) -> Tensor:  # shape: (P,)
    """How far noise moves each token, in squares; the same noise in every call."""
    x, generator = embedding.sample, torch.Generator().manual_seed(0)
    noise = [(torch.randint(2, x.shape, generator=generator) * 2 - 1).to(x) * _scale(x) * NOISE for _ in range(DRAWS)]
    tokens = embedding.in_portions([x + one * weight for one in noise])
    return (tokens - plain)[:, placed].double().square().sum((0, -1))


def _are_apart(first: Tensor, behind: Tensor) -> bool:
    """Whether no two boxes share a step along all dimensions."""
    shared = ((first[:, None] < behind[None]) & (first[None] < behind[:, None])).all(-1)
    return int(shared.sum()) == len(first)
