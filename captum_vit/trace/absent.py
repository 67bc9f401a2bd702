"""One pass without some of its tokens: they are dropped before the first block, or no query sees them there.

A dropped patch leaves after its position was added, so those that stay are where they were. A hidden key has
no share in any attention, and what is hidden is not pooled either. Both are the same function of the tokens
that stay; dropping is cheaper, hiding works where a block insists on a whole sequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from captum_vit.errors import InputError
from captum_vit.models.spec import Transformer
from captum_vit.trace.attention import SOFTMAX, unpacked_multi_head
from captum_vit.trace.site import Site, first_tensor

_SDPA = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


@contextmanager
def patches_absent(
    transformer: Transformer,
    gone: Tensor,  # shape: (B, P) bool, as many True in each row
    *,
    drop: bool,
) -> Iterator[None]:
    """Inside, a pass over a batch of pictures is one without these patches; prefix tokens stay.

    The head is given a shorter sequence, so that no pooling reads what is gone: the tokens that are left of
    it come in their order, prefix first.

    Args:
        transformer: the tower that reads the pictures.
        gone: which patches; the same number of each picture, so that the shorter batch is rectangular.
        drop: before the first block; otherwise their keys are hidden in all blocks, and they go after the last.
    """
    mode = _Absence(gone, ~gone, drop=drop, hide=not drop, shorten=True)
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
    mode = _Absence(gone, stay, drop=stay is not None, hide=not listening, shorten=False)
    with ExitStack() as stack:
        for module in listening:
            stack.callback(module.register_forward_pre_hook(_masking(gone), with_kwargs=True).remove)
        for block in transformer.blocks:
            stack.callback(block.register_forward_pre_hook(_open_eyes, with_kwargs=True).remove)
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
        call = signature(module.forward).bind_partial(*args, **kwargs)
        mask = call.arguments.get("attention_mask")
        if mask is not None and mask.shape != gone.shape:
            raise InputError(
                f"An attention mask with one number for each word, {tuple(gone.shape)}.", f"shape {tuple(mask.shape)}"
            )
        left = (~gone).long() if mask is None else mask.masked_fill(gone, 0)
        if not left.any(1).all():
            raise InputError("At least one word left.", "every word of a text gone")
        call.arguments["attention_mask"] = left
        return call.args, call.kwargs

    return hook


def _open_eyes(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Where a mask of pairs, 1 for visible, blinds what it hides (DeBERTa), hidden words see what others see.

    A head may read such a row, which would else be the mean of all values, padding among them.
    """

    def opened(x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[-1] != x.shape[-2] or not (x > 0).any():
            return x
        return torch.where((x > 0).any(-1, keepdim=True), x, x.amax(-2, keepdim=True))

    return _mapped(opened, args), _mapped(opened, kwargs)


@contextmanager
def _around(transformer: Transformer, mode: _Absence) -> Iterator[None]:
    blocks = transformer.blocks
    entrance = transformer.entrance(0)
    with ExitStack() as stack:
        stack.callback(Site(entrance, "input").hook(mode.enter).remove)
        for module in dict.fromkeys([entrance, *blocks]) if mode.drop else ():
            stack.callback(module.register_forward_pre_hook(mode.thin_arguments, with_kwargs=True).remove)
        stack.callback(Site(blocks[-1], "output").hook(mode.leave).remove)
        stack.enter_context(mode)
        yield


class _Absence(TorchFunctionMode):
    """Follows one pass: takes tokens out where the blocks begin, hides keys inside, and tidies up behind them.

    Args:
        gone: (B, P) which places are absent.
        stay: (B, P) which go through the blocks, or are left for the head; None: all.
        drop: take the others out before the first block.
        hide: no query sees what is gone.
        shorten: the head is given the tokens that stay alone.
    """

    def __init__(self, gone: Tensor, stay: Tensor | None, *, drop: bool, hide: bool, shorten: bool) -> None:
        super().__init__()
        self.gone, self.stay, self.drop, self.hide, self.shorten = gone, stay, drop, hide, shorten
        self.inside = False

    def enter(
        self,
        x: Tensor,  # shape: (B, N, D)
    ) -> Tensor | None:  # shape: (B, n, D)
        """At the first block: who is here, who may go on, and who may be seen."""
        self.n_tokens, self.prefix = x.shape[1], x.shape[1] - self.gone.shape[1]
        if len(x) != len(self.gone) or self.prefix < 0:
            raise InputError(
                f"Absent tokens of shape (B, P), for a batch of {len(x)} with at most {x.shape[1]} places each.",
                f"shape {tuple(self.gone.shape)}",
                "one place for each patch of the model's grid, or for each word.",
            )
        gone = F.pad(self.gone, (self.prefix, 0))
        stay = torch.ones_like(gone) if self.stay is None else F.pad(self.stay, (self.prefix, 0), value=True)
        self.index = _places(stay)  # shape: (B, n)
        if not self.index.shape[1]:
            raise InputError("At least one token left.", "every patch gone, in a model without other tokens")
        if self.drop:
            x, gone = _taken(x, self.index, 1), gone.gather(1, self.index)
        self.visible = ~gone[:, None, None] if self.hide else None  # shape: (B, 1, 1, n)
        self.inside = True
        return x if self.drop else None

    def leave(
        self,
        x: Tensor,  # shape: (B, n, D)
    ) -> Tensor | None:
        """After the last block: what the head is given."""
        self.inside = False
        if self.shorten:
            return None if self.drop else _taken(x, self.index, 1)
        if not self.drop:
            return None
        places = self.index.unsqueeze(-1).expand_as(x)
        return x.new_zeros(len(x), self.n_tokens, x.shape[-1]).scatter(1, places, x)

    def thin_arguments(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Positions and masks that come to a block beside the tokens lose the same places."""
        tokens = first_tensor((args, kwargs))
        thinned = lambda x: x if x is tokens else self._thinned(x)  # noqa: E731
        return _mapped(thinned, args), _mapped(thinned, kwargs)

    def _thinned(self, x: Tensor) -> Tensor:
        """What runs over tokens: a mask (B, N), one of pairs, or what rotates tokens, with or without the prefix."""
        if x.dim() not in (2, 3, 4) or x.shape == (self.n_tokens, self.n_tokens):
            return x  # of a mask of pairs for all rows alike the attention makes one for each
        if x.dim() == 2 and x.shape[1] == self.n_tokens and len(x) in (1, len(self.gone)):
            return _taken(x, self.index, 1)
        return self._at_places(x)

    def _at_places(
        self,
        x: Tensor,  # shape: (B or 1, H or 1, rows, columns), or without the first one or two; or (1, rows, columns)
    ) -> Tensor:
        """Along the last two dimensions, where they run over tokens."""
        rows, columns = x.shape[-2:]
        found = x if x.dim() == 4 or (x.dim() == 3 and len(x) == 1) else x[(None,) * (4 - x.dim())]
        if columns == self.n_tokens and rows in (1, columns):
            found = _taken(found, self.index, -1)
        if rows == self.n_tokens:
            found = _taken(found, self.index, -2)
        elif rows == self.n_tokens - self.prefix:
            found = _taken(found, self.index[:, self.prefix :] - self.prefix, -2)
        return found if found.shape[-2:] != x.shape[-2:] else x

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.inside:
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return unpacked_multi_head(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return func(**self._attending(**dict(zip(_SDPA, args, strict=False)), **kwargs))
        if func in SOFTMAX and self.visible is not None and args[0].shape[-2:] == (self.visible.shape[-1],) * 2:
            args = (self._hidden(args[0]), *args[1:])
        return func(*args, **kwargs)

    def _attending(self, **call: Any) -> dict[str, Any]:
        """The arguments of an attention, with the mask that it should have."""
        query, mask = call["query"], call.get("attn_mask")
        if mask is not None and self.drop and mask.shape[-1] == self.n_tokens:
            mask = self._at_places(mask)
        if self.visible is not None and call["key"].shape[-2] == self.visible.shape[-1]:
            if call.get("is_causal"):
                mask = torch.ones_like(self.visible[0, 0]).expand(query.shape[-2], -1).tril()
            call["is_causal"], mask = False, self._merged(mask)
        return call | {"attn_mask": mask}

    def _merged(self, mask: Tensor | None) -> Tensor | None:
        """A mask that hides what is gone too. A query left without any key is itself gone, and sees all."""
        if mask is None or self.visible is None:
            return self.visible
        if mask.dtype == torch.bool:
            merged = mask & self.visible
            return merged | ~merged.any(-1, keepdim=True)
        merged = torch.where(self.visible, mask, -math.inf)
        return merged.masked_fill(merged.isneginf().all(-1, keepdim=True), 0)

    def _hidden(
        self,
        scores: Tensor,  # shape: (B, H, n, n) or (B * H, n, n)
    ) -> Tensor:
        """The scores of an attention that is written out."""
        heads = scores.view(len(self.gone), -1, *scores.shape[-2:])
        merged = self._merged(heads)
        return scores if merged is None else merged.view_as(scores)


def _places(
    stay: Tensor,  # shape: (B, N)
) -> Tensor:  # shape: (B, n), increasing
    """Where those that stay are; shorter rows are filled up with others, to the length of the longest."""
    longest = int(stay.sum(1).max())
    return stay.int().argsort(dim=1, descending=True, stable=True)[:, :longest].sort(1).values


def _taken(
    x: Tensor,  # batch first, or 1
    index: Tensor,  # shape: (B, n)
    dim: int,
) -> Tensor:
    """Of each row of a batch its own entries along a dimension."""
    shape = [1] * x.dim()
    shape[0], shape[dim] = index.shape
    return torch.take_along_dim(x, index.view(shape), dim)


def _mapped(change: Any, tree: Any) -> Any:
    """Every tensor in nested tuples, lists and dicts, changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if type(tree) is dict:
        return {key: _mapped(change, value) for key, value in tree.items()}
    return type(tree)(_mapped(change, item) for item in tree) if type(tree) in (tuple, list) else tree
