"""Attention some rows at a time: its probabilities and their gradients exist for a moment, in the backward pass.

The forward pass runs the model's own kernel. The backward pass forms a few rows of the probabilities A and of their
gradient G at a time, as every memory-saving kernel does, and shows them to who wants to see them before they are gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import OptionError, UnsupportedModelError
from captum_vit.options import number
from captum_vit.trace.modes.explicit import attended_from, for_each_head

ROWS = 128  # at a time: fewer are slower, and more are no quicker
SHORT_MIB = 4.0
SHORT = 1 / 4  # of the memory
TENSORS = 4  # of rows of a map that exist together: A, G, what a method makes of them, and a gradient of scores

Chunk = tuple[slice, Tensor, Tensor]
"""Some rows, and of these A and G, (B, H, R, Nk)."""

_memory: ContextVar[float | None] = ContextVar("memory", default=None)


@contextmanager
def attention_memory(mib: float) -> Iterator[None]:
    r"""Let methods that read attention take so much memory for rows of it.

    Methods that follow a row through attention and its gradient form a few rows of both at a time: 128 outside of this
    context, which take a twentieth of what a backward pass holds, and here as many as the memory holds. Where a quarter
    of it, 4 MiB outside, holds all rows of a block, the attention of every block is written out whole in the forward
    pass, and kept: that is quicker for short sequences. With ``math.inf`` it always is.

    Args:
        mib: MiB.

    Raises:
        OptionError: it is no number above 0; in a pass, that it holds not even one row of a batch.
    """
    token = _memory.set(mib if mib == math.inf else number("mib", mib, above=0, hint="16, or math.inf."))
    try:
        yield
    finally:
        _memory.reset(token)


def is_short(
    shape: tuple[int, ...],  # (B, H, Nq, Nk)
    dtype: torch.dtype,
) -> bool:
    """Whether an attention is written out whole: its rows would take longer to form twice than to keep."""
    memory = _memory.get()
    return _mebibytes(shape, dtype) <= (SHORT_MIB if memory is None else memory * SHORT)


def rows_at_a_time(
    shape: tuple[int, ...],  # (B, H, Nq, Nk)
    dtype: torch.dtype,
) -> int:
    """How many rows the memory holds.

    Raises:
        OptionError: not one.
    """
    memory = _memory.get()
    if memory is None:
        return ROWS
    batch, heads, _, keys = shape
    one = _mebibytes((batch, heads, 1, keys), dtype)
    if (rows := int(memory / one)) < 1:
        raise OptionError(
            f"Memory for one row of attention at least: {one:.3g} MiB for {batch} samples, {heads} heads, {keys} keys.",
            f"attention_memory({memory:g})",
            f"attention_memory({math.ceil(one)}), or a smaller batch.",
        )
    return rows


def _mebibytes(shape: tuple[int, ...], dtype: torch.dtype) -> float:
    """What so many rows take."""
    return TENSORS * math.prod(shape) * max(dtype.itemsize, 4) / 2**20


def _as_it_is(x: Tensor) -> Tensor:
    return x


@dataclass(eq=False)
class ByRows:
    """One attention, of which rows are computed when they are needed.

    Attributes:
        tracked: whether the graph leads on from here.
        size: rows at a time.
        grad: of the context, (B, H, Nq, d), from the backward pass on.
        also: what the backward pass makes of A and G itself, in the first run through them.
        cast: to the precision in which rows are shown.
    """

    query: Tensor  # shape: (B, H, Nq, d)
    key: Tensor  # shape: (B, H, Nk, d)
    values: Tensor  # shape: (B, H, Nk, d)
    mask: Tensor | None
    is_causal: bool
    scale: float | None
    tracked: bool
    size: int
    grad: Tensor | None = None
    also: Callable[[slice, Tensor, Tensor], None] | None = None
    cast: Callable[[Tensor], Tensor] = _as_it_is

    def __post_init__(self) -> None:
        self._versions = self._written()

    def _written(self) -> list[int]:
        """How often each tensor was written."""
        made_of = [x for x in (self.query, self.key, self.values, self.mask) if x is not None]
        return [x._version for x in made_of if not x.is_inference()]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the probabilities."""
        batch, heads, queries, _ = self.query.shape
        return batch, heads, queries, self.key.shape[-2]

    def slices(self, first: int = 0, end: int | None = None) -> Iterator[slice]:
        """Rows from the first to the last, as many at a time as the memory holds."""
        end = self.shape[2] if end is None else end
        return (slice(start, min(start + self.size, end)) for start in range(first, end, self.size))

    def probs(self, rows: slice) -> Tensor:  # shape: (B, H, R, Nk)
        """Some rows of A.

        Raises:
            UnsupportedModelError: the model wrote over what they are made of.
        """
        if self._written() != self._versions:
            got = "one that writes over queries, keys or values behind its attention"
            hint = "captum_vit.attention_memory(math.inf), which keeps attention itself."
            raise UnsupportedModelError("A model that does not change its tokens in place.", got, hint)
        mask = None if self.mask is None else of_rows(self.mask, rows)
        query = self.query[:, :, rows]
        return self.cast(attended_from(query, self.key, mask, self.is_causal, self.scale, rows.start))

    def rows(self, first: int = 0, end: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """A, some rows at a time; in the backward pass all that there are."""
        if self.also is None:
            return ((rows, self.probs(rows)) for rows in self.slices(first, end))
        return ((rows, A) for rows, A, _ in self.chunks(every=True))

    def chunks(self, every: bool = False) -> Iterator[Chunk]:
        """A and G, some rows at a time: those that a gradient reaches; every row, if it is wanted."""
        assert self.grad is not None
        also, self.also = self.also, None
        for rows in self.slices() if every else self.slices(*span(self.grad)):
            A, G = self.probs(rows), self.cast(self.grad[:, :, rows] @ self.values.mT)
            yield rows, A, G
            if also is not None:
                also(rows, A, G)


@dataclass(eq=False)
class Whole:
    """One attention that was written out, in the same words."""

    A: Tensor  # shape: (B, H, Nq, Nk)
    G: Tensor | None = None

    @property
    def size(self) -> int:
        """Rows at a time: all."""
        return self.A.shape[2]

    def probs(self, rows: slice) -> Tensor:
        """Some rows of A."""
        return self.A[:, :, rows]

    def rows(self, first: int = 0, end: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """A, all rows at once."""
        rows = slice(first, self.A.shape[2] if end is None else end)
        yield rows, self.A[:, :, rows]

    def chunks(self) -> Iterator[Chunk]:
        """A and G, all rows at once."""
        assert self.G is not None
        yield slice(0, self.A.shape[2]), self.A, self.G


Rows = ByRows | Whole


def of_rows(mask: Tensor, rows: slice) -> Tensor:
    """A mask, of some queries."""
    return mask if mask.shape[-2] == 1 else mask[..., rows, :]


def span(
    grad: Tensor,  # shape: (B, H, Nq, d)
) -> tuple[int, int]:
    """From the first to behind the last row that is not zero everywhere."""
    return _ends(grad.any(-1).flatten(0, 1).any(0))


def weighing(
    row: Tensor,  # shape: (B, 1, R)
) -> tuple[int, int]:
    """From the first to behind the last entry that is not zero in every sample."""
    return _ends(row.flatten(0, 1).any(0))


def _ends(some: Tensor) -> tuple[int, int]:  # shape: (R,)
    found = some.nonzero().flatten().tolist()
    return (found[0], found[-1] + 1) if found else (0, 0)


class Shown:
    """Where the backward pass shows each attention, while somebody looks.

    Attributes:
        anchor: a number that every attention depends on: its gradient needs the backward pass of them all, and no more.
        look: who looks: at an attention of the forward pass, and what of it is there for now.
    """

    def __init__(self) -> None:
        self.anchor = torch.zeros((), requires_grad=True)
        self.look: Callable[[ByRows, ByRows], None] | None = None


def by_rows(
    shown: Shown,
    ends: bool,  # whether the gradient is needed no further than here
    query: Tensor,  # shape: (B, H, Nq, d)
    key: Tensor,  # shape: (B, H, Nk, d)
    value: Tensor,  # shape: (B, H, Nk, d)
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[ByRows, Tensor]:  # the second: the context (B, H, Nq, d)
    """``F.scaled_dot_product_attention`` by the model's own kernel; its backward pass shows its rows."""
    if enable_gqa:
        key, value = for_each_head(query, key, value)
    q, k, v = (x.detach() for x in (query, key, value))
    mask = None if attn_mask is None else attn_mask.detach()
    graph = [x.requires_grad for x in (query, key, value, attn_mask) if x is not None]
    size = rows_at_a_time((*q.shape[:-1], k.shape[-2]), q.dtype)
    rows = ByRows(q, k, v, mask, is_causal, scale, torch.is_grad_enabled() and any(graph), size)
    inputs = (q, k, v, mask) if ends else (query, key, value, attn_mask)
    context: Tensor = _Fused.apply(rows, shown, shown.anchor, *inputs)
    return rows, context


class _Fused(torch.autograd.Function):
    """The model's own kernel forwards; some rows at a time backwards."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: ByRows,
        shown: Shown,
        anchor: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        kernel = F.scaled_dot_product_attention
        context = kernel(query, key, value, mask, is_causal=rows.is_causal, scale=rows.scale)
        ctx.save_for_backward(query, key, value, mask)  # torch refuses those that were written over
        ctx.rows, ctx.shown = rows, shown
        return context

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, values, mask = ctx.saved_tensors
        ctx.rows.grad = grad
        q, k, v, g = (_heads_together(x.detach()) for x in (query, key, values, grad))
        rows = replace(ctx.rows, query=q, key=k, values=v, grad=g)
        needed = ctx.needs_input_grad[3:]
        sums = Gradients(rows, with_mask=needed[3]) if any(needed) else None
        rows.also = None if sums is None else sums.add
        if ctx.shown.look is not None:
            ctx.shown.look(ctx.rows, rows)
        if rows.also is not None:
            for _ in rows.chunks():
                pass
        return None, None, None, *((None,) * 4 if sums is None else sums.of_inputs())


class Gradients:
    """Gradients of queries, keys, values and mask, added up from A and G, some rows at a time."""

    def __init__(self, rows: ByRows, with_mask: bool) -> None:
        assert rows.grad is not None
        self.rows, self.g = rows, rows.grad
        self.wide = torch.promote_types(rows.query.dtype, torch.float32)
        self.scale = rows.query.shape[-1] ** -0.5 if rows.scale is None else rows.scale
        self.query = torch.zeros_like(rows.query)
        self.key, self.values = (torch.zeros_like(x, dtype=self.wide) for x in (rows.key, rows.values))
        self.mask = torch.zeros_like(rows.mask) if with_mask and rows.mask is not None else None

    def add(self, some: slice, A: Tensor, G: Tensor) -> None:
        """Those of some rows."""
        g, A, G = self.g[:, :, some], A.to(self.wide), G.to(self.wide)
        _add_product(self.values, A.to(g.dtype).mT, g)
        of_scores = torch.ops.aten._softmax_backward_data(G, A, -1, self.wide)
        if self.mask is not None:
            part = of_rows(self.mask, some)
            part += of_scores.sum_to_size(part.shape)
        of_scores = of_scores.to(g.dtype)
        torch.mul(of_scores @ self.rows.key, self.scale, out=self.query[:, :, some])
        _add_product(self.key, of_scores.mT, self.rows.query[:, :, some])

    def of_inputs(self) -> tuple[Tensor | None, ...]:
        """Query, key, values, mask."""
        like = self.rows.query.dtype
        return self.query, self.key.mul_(self.scale).to(like), self.values.to(like), self.mask


def _heads_together(x: Tensor) -> Tensor:  # shape: (B, H, N, d)
    """Laid out so that the heads of all samples can be one axis: every product would copy it otherwise."""
    return x if len(x) == 1 else x.contiguous()


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:  # (B, H, N, d) += (B, H, N, R) @ (B, H, R, d)
    """In place, without the product in between; one in half precision is added to a wider sum."""
    if total.dtype == a.dtype:
        total.flatten(0, 1).baddbmm_(a.flatten(0, 1), b.flatten(0, 1))
    else:
        total += a @ b
