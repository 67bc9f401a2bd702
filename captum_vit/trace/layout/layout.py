"""Where the tokens of one sample come from: measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_vit.errors import InputError, UnsupportedModelError
from captum_vit.models.per_sample import is_of_each_sample
from captum_vit.tokens import LINEAR, TokenLayout
from captum_vit.trace.layout.embedding import Embedding
from captum_vit.trace.layout.features import by_features
from captum_vit.trace.layout.frames import are_frames
from captum_vit.trace.layout.grid import Grid, grid_of
from captum_vit.trace.layout.reach import Reach, mixed, moved, reach_of
from captum_vit.trace.layout.text import depend_in_order


@dataclass(frozen=True)
class Layout:
    """Where tokens lie.

    Args:
        n_tokens: how many enter the first block.
        grid: the places of a picture's tokens; None for words and for frames of a sound, which are in their order.
        along: of frames, the dimension of a sample that is time.
    """

    n_tokens: int
    grid: Grid | None = None
    along: int | None = None

    def of(
        self,
        n_tokens: int,
        keep: Tensor | None,  # shape: (B, T)
    ) -> TokenLayout:
        """For a layer with so many tokens: those of the blocks, or others of which the places are the last.

        Raises:
            UnsupportedModelError: a grid of more than three axes.
        InputError: a layer of other tokens.
        """
        if self.grid is None:
            return TokenLayout(n_tokens, keep=keep, along=None if self.along is None else (self.along,))
        axes, tokens = self.grid.axes, self.grid.tokens
        behind = tokens == tuple(range(self.n_tokens - len(tokens), self.n_tokens))
        if len(axes) not in LINEAR:
            raise UnsupportedModelError(
                "Tokens in rows and columns, or along three axes.",
                f"a grid of {self.grid}",
                'output="channels" at a layer; one frame, or one group of channels, at a time.',
            )
        if n_tokens != self.n_tokens and (not behind or n_tokens < len(tokens)):
            raise InputError(
                f"A layer with the {self.n_tokens} tokens that enter the first block.",
                f"{n_tokens} tokens",
                'a block or a norm inside one, or output="channels".',
            )
        size = tuple(axis.size for axis in axes)
        box = (*(axis.start for axis in axes), *(axis.end for axis in axes))
        return TokenLayout(
            n_tokens,
            tuple(axis.cells for axis in axes),
            size,
            keep,
            None if box == (*[0] * len(size), *size) else box,
            None if behind else tokens,
            None if axes[0].dimension + len(axes) == axes[-1].dimension + 1 else tuple(a.dimension for a in axes),
        )


def measured(
    embedding: Embedding,
    plain: Tensor,  # shape: (1, N, D), its tokens for the sample
    real: Tensor | None,  # shape: (T,), words that are no padding; None: all
) -> Layout:
    """Which token comes from which place of the first input on which tokens depend.

    Raises:
        UnsupportedModelError: tokens in random order, or such as have no place of their own.
    """
    drawn = replace(embedding, other_draws=True)
    other = drawn.tokens(embedding.sample)
    if torch.equal(plain, other):
        return _measured(embedding, plain, real)
    layout = _or_none(embedding, plain, real)
    if layout is not None and layout == _or_none(drawn, other, real):
        return layout  # what a model adds at random leaves its tokens where they are
    raise UnsupportedModelError(
        "Tokens in the same order in every pass.",
        f"{type(embedding.model).__name__}, whose tokens come from other places in a second pass",
        "the model without masking or shuffling.",
    )


def _or_none(embedding: Embedding, plain: Tensor, real: Tensor | None) -> Layout | None:
    try:
        return _measured(embedding, plain, real)
    except UnsupportedModelError:
        return None


def _measured(embedding: Embedding, plain: Tensor, real: Tensor | None) -> Layout:
    batch, given = len(embedding.inputs[0]), (*embedding.inputs, *embedding.args)
    for which, x in enumerate(given):
        if not is_of_each_sample(x, batch):
            continue
        of_this = replace(embedding, which=which)
        if x.is_floating_point() and x.dim() > 2:
            reach = reach_of(of_this, plain)
            if reach is not None:
                _refuse_second(embedding, plain, reach.placed, which)
                return _of_picture(of_this, reach, plain)
        elif x.is_floating_point():
            if are_frames(of_this, plain):
                return Layout(plain.shape[1], along=0)
        elif _is_one_text(x) and depend_in_order(of_this, real):
            return Layout(plain.shape[1])
    raise UnsupportedModelError(
        "Tokens that depend on a picture (B, C, H, W) of floating point numbers, on a sound, or on words (B, T).",
        f"{type(embedding.model).__name__}, whose first block is given the same for any of its inputs of such a form",
        'a picture as floating point numbers; the module inside that reads it, or output="channels" at its layers.',
    )


def _refuse_second(embedding: Embedding, plain: Tensor, placed: Tensor, which: int) -> None:
    """Another picture may be given, if it has no tokens of its own: they would have no place in the map of this one."""
    batch, given = len(embedding.inputs[0]), (*embedding.inputs, *embedding.args)
    for other, x in enumerate(given):
        if other == which or not is_of_each_sample(x, batch) or not x.is_floating_point() or x.dim() < 4:
            continue
        if not ((x == 0) | (x == 1)).all():  # no mask
            of_other = replace(embedding, which=other)
            own = moved(of_other.tokens(mixed(of_other.sample)) - plain, plain)[0] & ~placed
            if own.any():
                one, another = tuple(given[which].shape), tuple(x.shape)
                raise UnsupportedModelError(
                    "Tokens of one picture.",
                    f"{int(placed.sum())} of one of shape {one}, and {int(own.sum())} of another of shape {another}",
                    "a module of yours that holds one of them and is given the other.",
                )


def _is_one_text(x: Tensor) -> bool:
    """Whether each sample is one row of ids."""
    return not x.is_floating_point() and x.dim() > 1 and x[0].numel() == x.shape[-1]


def _of_picture(embedding: Embedding, reach: Reach, plain: Tensor) -> Layout:
    """Of vectors in a sequence, which have one axis, as of words."""
    shape, n_tokens = tuple(embedding.sample.shape[1:]), len(reach.placed)
    try:
        grid = grid_of(reach, shape)
    except UnsupportedModelError:
        if len(shape) == 2 and are_frames(embedding, plain):
            return Layout(n_tokens, along=1)
        found = (
            None
            if reach.apart or len(shape) != 3
            else by_features(replace(embedding, shown=mixed(embedding.sample)), reach)
        )
        if found is None:
            raise
        grid = grid_of(found, shape)
    in_a_row = len(shape) == 2 and any(axis.cells == 1 for axis in grid.axes)
    if in_a_row and list(grid.tokens) == sorted(grid.tokens):
        return Layout(n_tokens, along=int(grid.axes[0].cells == 1))
    return Layout(n_tokens, grid)
