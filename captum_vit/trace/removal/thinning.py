"""The mode that follows one pass through its blocks and takes tokens out of it, or out of sight."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import InputError, TraceError
from captum_vit.sites.mode import Mode
from captum_vit.sites.nests import first_tensor, holds_tensor
from captum_vit.trace.modes.attention_weights import SOFTMAX, softmax_axis
from captum_vit.trace.modes.explicit import BEGINNINGS

_SDPA = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


class Thinning(Mode):
    """Follows one pass: takes tokens out where the blocks begin, hides keys inside, and tidies up behind them.

    Args:
        gone: (B, N) which tokens are absent.
        stay: (B, N) which go through the blocks, or are left for the head; None: all.
        standing: (P,) the tokens that have a place, in the order of the sequence.
        drop: take the others out before the first block.
        hide: no query sees what is gone.
        shorten: the head is given the tokens that stay alone.
    """

    reads = BEGINNINGS

    def __init__(
        self, gone: Tensor, stay: Tensor | None, standing: Tensor, *, drop: bool, hide: bool, shorten: bool
    ) -> None:
        super().__init__()
        self.standing = standing
        self.gone, self.stay, self.drop, self.hide, self.shorten = gone, stay, drop, hide, shorten
        self.active = False

    def enter(
        self,
        x: Tensor,  # shape: (B, N, D)
    ) -> Tensor | None:  # shape: (B, n, D)
        """At the first block: who is here, who may go on, and who may be seen."""
        self.n_tokens, gone = x.shape[1], self.gone
        if x.shape[:2] != gone.shape:
            raise InputError(
                f"Absent tokens of shape (B, N), for a batch of {len(x)} with {x.shape[1]} tokens each.",
                f"shape {tuple(gone.shape)}",
                "one place for each patch of the model's grid, or for each word.",
            )
        stay = torch.ones_like(gone) if self.stay is None else self.stay
        self.index = _places(stay)  # shape: (B, n)
        if not self.index.shape[1]:
            got = "every patch gone, in a model without other tokens"
            raise InputError("At least one token left.", got, "fractions below 1.")
        if self.drop:
            x, gone = _taken(x, self.index, 1), gone.gather(1, self.index)
        self.visible = ~gone[:, None, None] if self.hide else None  # shape: (B, 1, 1, n)
        self.active = True
        return x if self.drop else None

    def leave(
        self,
        x: Tensor,  # shape: (B, n, D)
    ) -> Tensor | None:
        """After the last block: what the head is given."""
        self.active = False
        if self.shorten:
            return None if self.drop else _taken(x, self.index, 1)
        if not self.drop:
            return None
        places = self.index.unsqueeze(-1).expand_as(x)
        return x.new_zeros(len(x), self.n_tokens, x.shape[-1]).scatter(1, places, x)

    def thin_arguments(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Positions and masks that come to a block beside the tokens lose the same places."""
        tokens = first_tensor((args, kwargs))
        closed = [x for x in (*args, *kwargs.values()) if first_tensor(x) is None and holds_tensor(x)]
        if closed:
            wanted = "Tensors beside the tokens of a block, whose places can be taken out."
            hint = 'attention by torch\'s own kernels: model.set_attn_implementation("sdpa") for Hugging Face.'
            raise TraceError(wanted, type(closed[0]).__name__, hint)
        thinned = lambda x: x if x is tokens else self._thinned(x)  # noqa: E731
        return mapped(thinned, args), mapped(thinned, kwargs)

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
        elif rows == len(self.standing):  # as those that have a place are numbered among themselves
            standing = torch.isin(self.index, self.standing)
            theirs = torch.searchsorted(self.standing, self.index[standing]).view(len(self.index), -1)
            found = _taken(found, theirs, -2)
        return found if found.shape[-2:] != x.shape[-2:] else x

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.scaled_dot_product_attention:
            return func(**self._attending(**dict(zip(_SDPA, args, strict=False)), **kwargs))
        if func in SOFTMAX and self.visible is not None:
            axis, n = softmax_axis(args, kwargs), self.visible.shape[-1]
            if args[0].dim() >= 3 and args[0].shape[axis] == n and args[0].shape.count(n) > 1:
                args = (self._hidden(args[0], axis, self.visible), *args[1:])
        return func(*args, **kwargs)

    def _attending(self, **call: Any) -> dict[str, Any]:
        """The arguments of an attention, with the mask that it should have."""
        query, mask = call["query"], call.get("attn_mask")
        if mask is not None and self.drop and mask.shape[-1] == self.n_tokens:
            mask = self._at_places(mask)
        if self.visible is not None and call["key"].shape[-2] == self.visible.shape[-1]:
            visible = self.visible
            if query.dim() == 3:  # heads behind one another
                visible = visible.squeeze(1).repeat_interleave(len(query) // len(visible), 0)
            if call.get("is_causal"):
                mask = torch.ones_like(self.visible[0, 0]).expand(query.shape[-2], -1).tril()
            call["is_causal"], mask = False, _merged(mask, visible)
        return call | {"attn_mask": mask}

    def _hidden(
        self,
        scores: Tensor,  # n queries and n keys, with batch and heads, in any order
        axis: int,  # of the keys
        visible: Tensor,  # shape: (B, 1, 1, n)
    ) -> Tensor:
        """Scores that are written out; samples are the first axis of their number, or lie in the first one."""
        rows = scores.movedim(axis, -1)
        place = next((i for i in range(rows.dim() - 1) if rows.shape[i] == len(self.gone)), 0)
        rows = rows.movedim(place, 0)
        merged = _merged(rows.reshape(len(self.gone), -1, 1, rows.shape[-1]), visible)
        return merged.view(rows.shape).movedim(0, place).movedim(-1, axis).contiguous()


def _merged(
    mask: Tensor | None,
    visible: Tensor,  # shape: (B, 1, 1, n), or (B * H, 1, n)
) -> Tensor:
    """A mask that hides what is gone too. A query left without any key is itself gone, and sees all."""
    if mask is None:
        return visible
    if mask.dtype == torch.bool:
        merged = mask & visible
        return merged | ~merged.any(-1, keepdim=True)
    merged = torch.where(visible, mask, -math.inf)
    return merged.masked_fill(merged.isneginf().all(-1, keepdim=True), 0)


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


def mapped(change: Any, tree: Any) -> Any:
    """Every tensor in nested tuples, lists and dicts, changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if type(tree) is dict:
        return {key: mapped(change, value) for key, value in tree.items()}
    return type(tree)(mapped(change, item) for item in tree) if type(tree) in (tuple, list) else tree
