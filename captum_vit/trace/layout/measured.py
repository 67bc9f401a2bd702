"""The layout of a model's tokens for inputs of one shape, measured once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError, UnsupportedModelError
from captum_vit.models.modules import modules_of
from captum_vit.sites.hooks import mine
from captum_vit.sites.site import Place, Site
from captum_vit.tokens import TokenLayout
from captum_vit.trace.layout.embedding import Embedding, of_each_sample
from captum_vit.trace.layout.grid import Grid, grid_of
from captum_vit.trace.layout.reach import Reach, reach_of
from captum_vit.trace.layout.words import depend_in_order

SHAPES = 64  # that are remembered of a model, texts of another length among them


@dataclass(frozen=True)
class Layout:
    """Where tokens lie.

    Args:
        n_tokens: how many enter the first block.
        grid: the places of a picture's tokens; None for words, which are in their order.
        size: steps of the picture along the two axes of its grid.
    """

    n_tokens: int
    grid: Grid | None = None
    size: tuple[int, int] = (0, 0)

    def of(
        self,
        n_tokens: int,
        keep: Tensor | None,  # shape: (B, T)
    ) -> TokenLayout:
        """For a layer with so many tokens: those of the blocks, or others of which the places are the last.

        Raises:
            UnsupportedModelError: a grid of other axes than rows and columns; a layer of other tokens.
        """
        if self.grid is None:
            return TokenLayout(n_tokens, keep=keep)
        axes, tokens = self.grid.axes, self.grid.tokens
        behind = tokens == tuple(range(self.n_tokens - len(tokens), self.n_tokens))
        if len(axes) != 2:
            raise UnsupportedModelError(
                "Tokens in rows and columns.",
                f"a grid of {self.grid}",
                'output="channels" at a layer; one frame, or one group of channels, at a time.',
            )
        if n_tokens != self.n_tokens and (not behind or n_tokens < len(tokens)):
            raise InputError(
                f"A layer with the {self.n_tokens} tokens that enter the first block.",
                f"{n_tokens} tokens",
                'a block or a norm inside one, or output="channels".',
            )
        rows, columns = axes
        box = (rows.start, columns.start, rows.end, columns.end)
        return TokenLayout(
            n_tokens,
            (rows.cells, columns.cells),
            self.size,
            keep,
            None if box == (0, 0, *self.size) else box,
            None if behind else tokens,
        )


def measured(
    model: nn.Module,
    entrance: Place,
    blocks: Iterable[nn.Module],
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
    real: Tensor | None = None,  # shape: (T,)
) -> Layout:
    """Which token comes from which place of the first input: measured for the first sample, or remembered.

    What is remembered holds for a model as long as the modules that ran before its blocks are the same objects, with
    the same hooks and plain attributes. Call it inside ``undisturbed``, while nothing is replaced in the model.

    Raises:
        UnsupportedModelError: tokens in random order, or such as have no place of their own.
    """
    key = _key(entrance, inputs, args)
    known = _KNOWN.setdefault(model, {})
    if key in known and known[key].holds():
        return known[key].layout
    embedding = Embedding(model, entrance, inputs, args)
    ran = _running(model, entrance, blocks, embedding)
    layout = _measured(embedding, real)
    known.pop(key, None)
    known[key] = _Known(layout, _states(model, ran))
    if len(known) > SHAPES:
        del known[next(iter(known))]
    return layout


def _measured(embedding: Embedding, real: Tensor | None) -> Layout:
    """Twice, where the model draws random numbers."""
    once = _one(embedding, real)
    x = embedding.sample
    drawn = replace(embedding, other_draws=True)
    if not torch.equal(embedding.tokens(x), drawn.tokens(x)):
        try:
            again = _one(drawn, real)
        except UnsupportedModelError:
            again = None
        if again != once:
            raise UnsupportedModelError(
                "Tokens in the same order in every pass.",
                f"{type(embedding.model).__name__}, whose tokens come from other places in a second pass",
                "the model without masking or shuffling.",
            )
    return once


def _one(embedding: Embedding, real: Tensor | None) -> Layout:
    """Of the first input on which the tokens depend."""
    batch, given = len(embedding.inputs[0]), (*embedding.inputs, *embedding.args)
    for which, x in enumerate(given):
        if not of_each_sample(x, batch):
            continue
        of_this = replace(embedding, which=which)
        if x.is_floating_point() and x.dim() > 2:
            reach = reach_of(of_this)
            if reach.placed.any():
                return _of_picture(reach, tuple(x.shape[1:]))
        elif not x.is_floating_point() and x.dim() == 2 and depend_in_order(of_this, real):
            return Layout(of_this.tokens(of_this.sample).shape[1])
    raise UnsupportedModelError(
        "Tokens that depend on a picture or on words.",
        f"{type(embedding.model).__name__}, whose first block is given the same for any of its inputs",
        "the module inside that reads them.",
    )


def _of_picture(reach: Reach, shape: tuple[int, ...]) -> Layout:
    """Of vectors in a sequence, which have one axis, as of words."""
    grid, n_tokens = grid_of(reach, shape), len(reach.placed)
    if len(shape) == 2 and grid.axes[-1].cells == 1 and list(grid.tokens) == sorted(grid.tokens):
        return Layout(n_tokens)
    return Layout(n_tokens, grid, (shape[-2], shape[-1]))


# -- what is remembered ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _State:
    """A module at its place in another one, as it was."""

    holder: Any  # a weak reference, as the module
    module: Any
    name: str
    then: tuple[Any, ...]

    def holds(self) -> bool:
        """Whether it is there still, and as it was."""
        holder, module = self.holder(), self.module()
        at_place = module is not None and holder is not None and holder._modules.get(self.name, holder) is module
        return at_place and _state(module) == self.then


def _as_it_is(holder: nn.Module, name: str, module: nn.Module) -> _State:
    return _State(ref(holder), ref(module), name, _state(module))


_PLAIN = (int, bool, float, str, type(None))


def _state(module: nn.Module) -> tuple[Any, ...]:
    """Its hooks, a forward of its own, and its plain attributes."""
    own = vars(module)
    plain = [value for value in own.values() if isinstance(value, _PLAIN) or _is_plain(value)]
    return tuple(module._forward_hooks), tuple(module._forward_pre_hooks), id(own.get("forward")), plain


def _is_plain(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, _PLAIN) for item in value)


@dataclass(frozen=True)
class _Known:
    layout: Layout
    states: Sequence[_State]

    def holds(self) -> bool:
        return all(state.holds() for state in self.states)


_KNOWN: WeakKeyDictionary[nn.Module, dict[Any, _Known]] = WeakKeyDictionary()


def _key(entrance: Place, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call may differ in, but for the numbers in its tensors."""
    batch = len(inputs[0])

    def kind(x: Any) -> Any:
        if isinstance(x, Tensor):
            return tuple(x.shape[1:]) if of_each_sample(x, batch) else tuple(x.shape), x.is_floating_point()
        return x if isinstance(x, _PLAIN) else type(x)

    where = (id(entrance.module), entrance.side, entrance.nth) if isinstance(entrance, Site) else entrance
    return (where, *map(kind, (*inputs, *args)))


def _running(model: nn.Module, entrance: Place, blocks: Iterable[nn.Module], embedding: Embedding) -> set[nn.Module]:
    """The modules that run before the first block, and the one that is entered."""
    ran = {entrance.module} if isinstance(entrance, Site) else set()
    note = mine(lambda module, args: ran.add(module))
    handles = [m.register_forward_pre_hook(note) for m in modules_of(model, without=blocks)]
    try:
        embedding.tokens(embedding.sample)
    finally:
        for handle in handles:
            handle.remove()
    return ran


def _states(model: nn.Module, ran: set[nn.Module]) -> list[_State]:
    held = ((holder, name, child) for holder in modules_of(model) for name, child in holder._modules.items())
    return [_as_it_is(model, "", model)] + [_as_it_is(h, name, m) for h, name, m in held if m is not None and m in ran]
