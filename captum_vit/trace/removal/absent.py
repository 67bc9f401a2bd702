"""One pass without some of its tokens: they are dropped before the first block, or no query sees them there.

A dropped patch leaves after its position was added, so those that stay are where they were. A hidden key has
no share in any attention, and what is hidden is not pooled either. Both are the same function of the tokens
that stay; dropping is cheaper, hiding works where a block insists on a whole sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError
from captum_vit.models.transformer import Transformer
from captum_vit.sites.site import Site, ThisThreadOnly
from captum_vit.tokens import TokenLayout
from captum_vit.trace.removal.thinning import Thinning, mapped


@contextmanager
def patches_absent(
    transformer: Transformer,
    layout: TokenLayout,
    gone: Tensor,  # shape: (B, h*w) bool, as many True in each row
    *,
    drop: bool,
    shorten: bool = True,
) -> Iterator[None]:
    """Inside, a pass over a batch of pictures is one without these patches; special tokens stay.

    The head is given a shorter sequence, so that no pooling reads what is gone: the tokens that are left of
    it come in their order.

    Args:
        transformer: the tower that reads the pictures.
        layout: where their tokens lie.
        gone: which patches; the same number of each picture, so that the shorter batch is rectangular.
        drop: before the first block; otherwise their keys are hidden in all blocks, and they go after the last.
        shorten: False leaves their rows to the head, which must not read them; of those that were dropped, zeros.
    """
    absent = layout.from_patches(gone)
    standing = torch.arange(layout.n_tokens, device=gone.device)[layout.standing]
    mode = Thinning(absent, ~absent, standing, drop=drop, hide=not drop, shorten=shorten)
    with _around(transformer, mode):
        yield


@contextmanager
def words_absent(
    model: nn.Module,
    transformer: Transformer,
    gone: Tensor,  # shape: (B, T) bool
    *,
    stay: Tensor | None = None,  # shape: (B, T) bool
) -> Iterator[None]:
    """Inside, a pass over a batch of texts is one in which no query sees these words.

    They are hidden as padding is, by the model's own attention mask where it takes one, else in every
    attention of its blocks. The row of a hidden word goes on by itself; a head that reads it reads what it
    makes of the others.

    Args:
        model: what is called, with the tower inside it.
        transformer: the tower that reads the texts.
        gone: which words.
        stay: those that go through the blocks; the others are dropped before the first and put back, as zeros,
            after the last, so that a head finds its rows where they were. Rows with fewer than the longest are
            filled up with words that are hidden. None drops nothing.
    """
    listening = _listening(model, transformer)
    words = torch.arange(gone.shape[1], device=gone.device)
    mode = Thinning(gone, stay, words, drop=stay is not None, hide=not listening, shorten=False)
    with ExitStack() as stack:
        for module in listening:
            stack.callback(module.register_forward_pre_hook(ThisThreadOnly(_masking(gone)), with_kwargs=True).remove)
        for block in dict.fromkeys(transformer.modules()):
            stack.callback(
                block.register_forward_pre_hook(ThisThreadOnly(_unmask_hidden_rows), with_kwargs=True).remove
            )
        stack.enter_context(_around(transformer, mode))
        yield


def takes_mask(model: nn.Module, transformer: Transformer) -> bool:
    """Whether a text model hides words by an attention mask of its own."""
    return bool(_listening(model, transformer))


def _listening(model: nn.Module, transformer: Transformer) -> list[nn.Module]:
    """The tower and the modules around it, as far as they take an attention mask."""
    holders = (m for m in model.modules() if any(inner is transformer.tower for inner in m.modules()))
    return [m for m in holders if "attention_mask" in signature(m.forward).parameters]


def _masking(gone: Tensor) -> Any:
    """A hook that adds what is gone to the padding of an attention mask."""

    def hook(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        place = list(signature(module.forward).parameters).index("attention_mask")
        mask = args[place] if place < len(args) else kwargs.get("attention_mask")
        if not isinstance(mask, Tensor | None):
            return args, kwargs  # made by a module around this one, of the mask that it was given
        if mask is not None and mask.shape != gone.shape:
            wanted = f"An attention mask with one number for each word, {tuple(gone.shape)}."
            raise InputError(wanted, f"shape {tuple(mask.shape)}", "the mask that the tokenizer gave with these ids.")
        left = (~gone).long() if mask is None else mask.masked_fill(gone, 0)
        if not left.any(1).all():
            raise InputError("At least one word left.", "every word of a text gone", "special tokens that stay.")
        if place < len(args):
            return (*args[:place], left, *args[place + 1 :]), kwargs
        return args, {**kwargs, "attention_mask": left}

    return hook


def _unmask_hidden_rows(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Where a mask of pairs, 1 for visible, blinds what it hides (DeBERTa), hidden words see what others see.

    A head may read such a row, which would else be the mean of all values, padding among them.
    """

    def opened(x: Tensor) -> Tensor:
        is_mask = x.dim() == 4 and x.shape[-1] == x.shape[-2] and bool(((x == 0) | (x == 1)).all())
        if not is_mask or not x.any():  # other numbers for pairs are biases
            return x
        return torch.where((x > 0).any(-1, keepdim=True), x, x.amax(-2, keepdim=True))

    return mapped(opened, args), mapped(opened, kwargs)


@contextmanager
def _around(transformer: Transformer, mode: Thinning) -> Iterator[None]:
    entrance = transformer.blocks[0].entrance
    takers = [entrance.module] if isinstance(entrance, Site) and entrance.side == "input" else []
    with ExitStack() as stack:
        stack.enter_context(mode)  # before the hooks, which then count the calls of the model, not those of the mode
        stack.callback(entrance.hook(mode.enter).remove)
        for module in dict.fromkeys([*takers, *transformer.modules()]) if mode.drop else ():
            stack.callback(
                module.register_forward_pre_hook(ThisThreadOnly(mode.thin_arguments), with_kwargs=True).remove
            )
        stack.callback(transformer.blocks[-1].out.hook(mode.leave).remove)
        yield
