"""What a method wants to see of a pass, and the probe that follows it from block to block and keeps that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import OptionError, TraceError
from captum_vit.models.transformer import Transformer
from captum_vit.options import one_of
from captum_vit.sites.arranged import Visit
from captum_vit.sites.site import Place
from captum_vit.trace.modes.by_rows import ByRows, Shown, by_rows, is_short
from captum_vit.trace.modes.explicit import Attention
from captum_vit.trace.modes.rules import checked_rule
from captum_vit.trace.record.pooling import ROWS
from captum_vit.trace.replay.readouts import READOUTS
from captum_vit.trace.run.score import SCORES
from captum_vit.trace.run.watch import Watch

INSIDE = ("attn_in", "before_mid", "mid", "before_norm")
FACTORS = ("queries", "keys")
KINDS = ("tokens", "probs", "values", "context", *FACTORS, "out", *INSIDE)
ATTENTION = {"probs", "values", "context", *FACTORS}


@dataclass(frozen=True)
class Want:
    """What a method needs to see: kinds of tensors, kinds of gradients, and how the graph is built.

    Args:
        seen: kinds to keep, of ``KINDS``: ``tokens`` enter the block, ``attn_in`` enters the attention, ``queries`` and
            ``keys`` are what its scores are products of,
            ``mid`` is the stream between attention and feed-forward, ``before_mid`` what a post-norm block
            normalises to get it, ``before_norm`` what it normalises last, ``out`` leaves the block.
        grads: kinds whose gradient is needed too.
        score: what is differentiated, ``"logit"``, ``"prob"`` or ``"auto"``.
        rule: the rule under which the graph is built, of ``RULES``.
        relevance: let ``grads`` hold relevances in place of gradients: what the score, counted as 1, hands back
            by layer-wise relevance propagation. Everything is then computed in float64.
        row: find the rows that the head reads, and with what weights. With x the tokens where it reads them (behind
            the last norm that works token by token): ``"outputs"``, the length of df/dx for a fixed mixture f of all
            outputs (of an attention pooling the attention that it pays); ``"target"``, the same for the target's
            output; ``"evidence"``, what a token adds to it, (x . df/dx)+, of special tokens the absolute value. They
            sum to 1, and are one-hot, of all kinds, for a head that reads CLS.
        biases: add up bias x gradient, token by token, for every bias from block ``start`` on; needs ``row``
            and gradients.
        incomplete: let tokens and biases miss the score under a rule that says that they sum to it; else refused.
        first_row: of ``probs`` the first row will do where the head reads that row alone (CLS pooling); it is
            much cheaper. Of a model whose head reads others, all rows are recorded after all, by a second pass.
        by_rows: of ``probs`` and their gradients some rows will do at a time: fused attention then stays as it is, and
            the backward pass waits for :meth:`Record.backward`, which shows each attention on its way.
        site: one more place whose tensor is kept.
        every_layout: find where the tokens of every block lie, in a network whose blocks have tokens of several kinds.
        recompute: blocks save nothing for the backward pass, and run again in it; for gradients at ``tokens``.
        readout: differentiate each block's own readout in place of the score, by that block only: what the head makes
            of the tokens that leave it (``"head"``), or of their mean (``"mean"``). The graph is cut where tokens enter
            a block. Needs ``out`` and gradients.

    Raises:
        OptionError: an unknown kind, score, rule or readout.
    """

    seen: Collection[str] = ()
    grads: Collection[str] = ()
    score: str = "logit"
    rule: str = "grad"
    relevance: bool = False
    row: str | None = None
    biases: bool = False
    incomplete: bool = False
    first_row: bool = False
    by_rows: bool = False
    site: Place | None = None
    every_layout: bool = False
    recompute: bool = False
    readout: str | None = None

    def __post_init__(self) -> None:
        for name, kinds in (("seen", self.seen), ("grads", self.grads)):
            if isinstance(kinds, str):
                raise OptionError(f"`{name}` must be a list of kinds.", repr(kinds), f"{name}=[{kinds!r}].")
            for kind in set(kinds) - set(KINDS):
                one_of(name, kind, KINDS)
        one_of("score", self.score, SCORES)
        checked_rule(self.rule)
        if self.row is not None:
            one_of("row", self.row, ROWS)
        if self.readout is not None:
            one_of("readout", self.readout, READOUTS)

    @property
    def kinds(self) -> set[str]:
        return {*self.seen, *self.grads}

    @property
    def needs_attention(self) -> bool:
        """Whether anything inside of blocks is asked for, or another place."""
        return bool(self.kinds - {"tokens"}) or self.site is not None


class Probe:
    """Follows a pass from block to block and keeps what is wanted."""

    def __init__(self, transformer: Transformer, want: Want, start: int) -> None:
        self.transformer, self.want, self.start = transformer, want, start
        self.seen: dict[str, dict[int, Tensor]] = defaultdict(dict)
        self.by_rows: dict[int, ByRows] = {}  # attention of which some rows are known at a time
        self.shown = Shown()
        self.attended: set[int] = set()  # the blocks whose attention was seen
        self.pool_attention: list[Attention] = []
        self.last_rows: Tensor | None = None
        self.at_site: Tensor | None = None
        self.unsure: tuple[int, Tensor] | None = None  # block and probabilities whose samples are known by order alone
        self.batch = self.n_tokens = self.n_first = 0  # the last of the block that is watched first
        self.place = 0  # the last block that was entered; after the blocks their number
        self.done = False  # all blocks are behind
        self._block: int | None = None

    def attach(self, watch: Watch) -> None:
        blocks = self.transformer.blocks
        for layer, block in enumerate(blocks):
            watch.visits.append((block.entrance, self._enter(layer)))
            for kind in INSIDE if layer >= self.start else ():
                if kind in self.want.kinds:
                    watch.visits.append((self.transformer.part(layer, kind), self._keep(kind, layer)))
            watch.visits.append((block.out, self._leave(layer, last=layer == len(blocks) - 1)))
        if self.want.site is not None:
            watch.at(self.want.site, self._keep_site)

    def _keep_site(self, x: Tensor) -> None:
        self.at_site = x

    def _keep(self, kind: str, layer: int) -> Visit:
        """Of a block that lays all samples end to end, sample by sample."""

        def visit(x: Tensor) -> None:
            end_to_end = x.dim() == 2 and len(x) == self.batch * self.n_tokens and kind not in self.want.grads
            self.seen[kind][layer] = x.unflatten(0, (self.batch, self.n_tokens)) if end_to_end else x

        return visit

    def _enter(self, layer: int) -> Visit:
        def visit(x: Tensor) -> Tensor | None:
            self._block, self.place, self.batch, self.n_tokens = layer, layer, *x.shape[:2]
            if layer == self.start:
                self.n_first = x.shape[1]
            leaf = None
            if self.want.grads and (layer == self.start or self._cuts(layer)):
                torch.set_grad_enabled(True)
                leaf = x = x.detach().requires_grad_()
            if "tokens" in self.want.kinds and layer >= self.start:
                self.seen["tokens"][layer] = x
            return leaf

        return visit

    def _cuts(self, layer: int) -> bool:
        """Whether the graph begins anew where tokens enter a block."""
        return layer >= self.start and self.want.readout is not None

    def _leave(self, layer: int, last: bool) -> Visit:
        def visit(x: Tensor) -> Tensor | None:
            self._block, self.place, self.done = None, layer + last, last
            rows = None
            if last and self.want.row:
                if not x.requires_grad:
                    torch.set_grad_enabled(True)
                    rows = x = x.detach().requires_grad_()
                self.last_rows = x
            if "out" in self.want.kinds and layer >= self.start:
                self.seen["out"][layer] = x
            return None if rows is None else rows.clone()  # a model may write over it

        return visit

    def see_attention(self, attention: Attention) -> None:
        if self._block is None:
            if self.done:
                self.pool_attention.append(attention)
            return
        if self._block < self.start:
            return
        self._refuse_other_shape(attention.probs.shape)
        if not attention.sure:
            self.unsure = self._block, attention.probs.detach()
        self._keep_attention(probs=attention.probs, values=attention.values, context=attention.context)

    def see_factors(self, queries: Tensor, keys: Tensor) -> None:
        """Those of the attention among the tokens of a block; other products of two tensors are none."""
        if self._block is None or self._block < self.start or self._block in self.seen["keys"]:
            return
        if all(x.dim() == 4 and len(x) == self.batch and x.shape[2] == self.n_tokens for x in (queries, keys)):
            self.seen["queries"][self._block], self.seen["keys"][self._block] = queries, keys

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
        """The context of a fused attention, of which rows are known from now on; None of one to be written out."""
        if self.done:
            return None
        if self._block is None or self._block < self.start:
            return F.scaled_dot_product_attention(query, key, value, *args, **kwargs)
        shape = (*query.shape[:-1], key.shape[-2])
        if is_short(shape, query.dtype):
            return None
        self._refuse_other_shape(shape)
        ends = (self._block == self.start or self._cuts(self._block)) and not {"tokens", "attn_in"} & set(
            self.want.grads
        )
        rows, context = by_rows(self.shown, ends, query, key, value, *args, **kwargs)
        self.by_rows[self._block] = rows
        self._keep_attention(values=rows.values, context=context)
        return context

    def _refuse_other_shape(self, shape: Sequence[int]) -> None:
        if len(shape) != 4 or shape[0] != self.batch:
            raise TraceError(
                f"Attention of {self.batch} samples in (B, H, N, N).",
                f"{tuple(shape)} in block {self._block}, where {self.n_tokens} tokens enter",
                "a model whose attention is not cut into windows, or a method that does not read attention, such as "
                "LayerCDAM.",
            )
        if shape[-1] != self.n_tokens:
            raise TraceError(
                "Attention among the tokens.",
                f"{shape[-1]} keys for {self.n_tokens} tokens in block {self._block}",
                "a model without learned prefixes, or a method that does not read attention, such as LayerCDAM.",
            )

    def _keep_attention(self, **kinds: Tensor) -> None:
        assert self._block is not None
        if self._block in self.attended:
            raise TraceError(
                "One attention in every block.",
                f"more than one in block {self._block}",
                "a method that does not read attention, such as LayerCDAM or DecompX.",
            )
        self.attended.add(self._block)
        for kind, tensor in kinds.items():
            if kind in self.want.kinds:
                self.seen[kind][self._block] = tensor

    def refuse_silence(self, what_ran: Callable[[int], str]) -> None:
        """A kind that was not seen in some block would otherwise be a map of nothing."""
        layers = range(self.start, len(self.transformer.blocks))
        for kind in self.want.kinds:
            seen = self.seen[kind].keys() | (self.by_rows.keys() if kind == "probs" else ())
            missing = [layer for layer in layers if layer not in seen]
            if missing:
                ran = f"; in block {missing[0]} {what_ran(missing[0])}" if kind in ATTENTION else ""
                raise TraceError(
                    f"The {kind} of every block from {self.start} on.",
                    f"nothing seen in blocks {missing}{ran}",
                    "a method that does not read attention, such as LayerCDAM; else an attention that runs in Python "
                    "as softmax and matmul or through PyTorch's scaled_dot_product_attention: for flash or flex "
                    'kernels load the model with attn_implementation="sdpa", and pass the bare model, not one that '
                    "runs in other threads.",
                )
