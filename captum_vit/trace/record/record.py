"""What happened in every block during one pass: tokens, attention, and gradients of the target there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from captum._utils.typing import TargetType
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_vit.errors import PartialMapWarning, TraceError
from captum_vit.tokens import TokenLayout
from captum_vit.trace.modes.biases import BiasRelevance, BiasTap
from captum_vit.trace.modes.by_rows import ByRows, Rows, Whole
from captum_vit.trace.modes.cells import Cells
from captum_vit.trace.modes.completeness import COMPLETE, refuse_gap
from captum_vit.trace.modes.explicit import AttentionTap
from captum_vit.trace.modes.queries import QueryTap
from captum_vit.trace.modes.relevance import Relevance, carried, refuse_half_precision
from captum_vit.trace.modes.rules import rule_modes
from captum_vit.trace.modes.silence import what_ran
from captum_vit.trace.record.backward_pass import BackwardPass
from captum_vit.trace.record.by_cell import BiasesByCell, on_earlier, placing
from captum_vit.trace.record.head import HeadTap
from captum_vit.trace.record.pooling import Head, Pooling, no_graph, of_other_blocks
from captum_vit.trace.record.probe import ATTENTION, FACTORS, Probe, Want
from captum_vit.trace.replay.accepted import refuse_incomplete, refuse_own_derivatives
from captum_vit.trace.replay.readouts import read_by_head
from captum_vit.trace.run.finite import refuse_not_finite
from captum_vit.trace.run.layouts import layouts_of_blocks
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.recompute import recomputed
from captum_vit.trace.run.score import select, transform
from captum_vit.trace.run.state import dtype_of, refuse_opaque
from captum_vit.trace.run.watch import Watch

__all__ = ["Record", "Want", "record"]


@dataclass
class Record:
    """One pass over a batch: by kind and block, what was seen and the gradients there.

    Shapes: tokens (B, N, D), probabilities (B, H, N, N), values and contexts (B, H, N, d).
    """

    call: Pass
    layout: TokenLayout
    output: Tensor  # shape: (B, K), as the model returned it
    seen: dict[str, dict[int, Tensor]]
    grads: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    pooling: Pooling | None = None  # how the head reads the last rows
    at_site: Tensor | None = None  # the tensor at the site that was asked for
    biases: dict[int, Tensor] = field(default_factory=dict)  # shape of each: (B, N), bias x gradient
    start: int = 0
    target: TargetType = None
    eps: float = 0.0  # the rounding of the least precise tensor that was seen
    layouts: dict[int, TokenLayout] = field(default_factory=dict)  # of blocks, where theirs is not that of the record
    by_rows: dict[int, ByRows] = field(default_factory=dict)  # by block, attention that is not among what was seen
    backward_pass: BackwardPass | None = None  # one that has not run

    def __post_init__(self) -> None:
        self.transformer = self.call.transformer

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What was explained."""
        return self.call.inputs

    @property
    def args(self) -> tuple[Any, ...]:
        """What the model was given besides."""
        return self.call.args

    @property
    def row(self) -> Tensor:  # shape: (B, 1, N); (B, C, N) for the evidence of each of C outputs
        """The row with which the head reads the tokens: one-hot for CLS pooling; see `Want`."""
        row = self._pooling.row
        return row.unsqueeze(1) if row.dim() == 2 else row

    def of_output(self, c: int | Tensor) -> Record:
        """With the row of one of the outputs, where each has its own; c may be one index for each sample."""
        samples = torch.arange(len(self.row), device=self.row.device)
        return replace(self, pooling=self._pooling._replace(row=self.row[samples, c]))

    @property
    def several(self) -> Tensor:  # shape: (B, 1)
        """Whether the head reads more than one row of a sample."""
        return self._pooling.several

    @property
    def read(self) -> Tensor:  # shape: (B, 1, N)
        """Equal weights, of a sum of 1, of the rows that are read at all."""
        read = self.row.ne(0).to(self.row)
        return read / read.sum(-1, keepdim=True).clamp(min=1)

    @property
    def _pooling(self) -> Pooling:
        if self.pooling is None:
            raise TraceError("A record with the row of the head.", "one made without", 'Want(row="outputs").')
        return self.pooling

    @property
    def layers(self) -> range:
        """The blocks that were recorded."""
        return range(self.start, len(self.transformer.blocks))

    def layout_of(self, layer: int) -> TokenLayout:
        """Where the tokens that enter a block lie."""
        return self.layouts.get(layer, self.layout)

    def biases_of(self, layer: int) -> Tensor:  # shape: (B, N), N of the block
        """What the biases of a block add to the score, token by token; the last block's include those after it."""
        if self.layouts:
            return self.biases[layer]
        depth = len(self.transformer.blocks)
        places = [layer] if layer < depth - 1 else [layer, depth]
        return sum((self.biases[p] for p in places if p in self.biases), torch.zeros_like(self.row.squeeze(1)))

    def biases_behind(self) -> list[Tensor]:  # shape of each: (B, N), N of the block
        """For each block that was recorded what its biases and all those behind it add, on its own tokens."""
        found: list[Tensor] = []
        for layer in reversed(self.layers):
            own = self.biases_of(layer)
            if found:
                own = own + self._laid_on(layer, found[-1])
            found.append(own)
        return found[::-1]

    def _laid_on(self, layer: int, behind: Tensor) -> Tensor:
        """What belongs to the tokens of the next block, on those of this one."""
        return on_earlier(behind, self.layout_of(layer + 1), self.layout_of(layer)) if self.layouts else behind

    def attention(self, layer: int) -> Rows:
        """The attention of a block, of which some rows are known at a time; gradients after the backward pass."""
        if layer in self.by_rows:
            return self.by_rows[layer]
        return Whole(self.seen["probs"][layer], self.grads.get("probs", {}).get(layer))

    def backward(self, look: Callable[[int, Rows], None] | None = None) -> None:
        """Run the backward pass, and look at the attention of each block that it reaches, from the last to the first.

        What is seen of an attention is shown by its ``chunks()``: rows of A and of its gradient. They are gone when
        the look is over, unless the record keeps attention whole; later ones compute them anew.
        """
        if self.backward_pass is not None:
            backward, self.backward_pass = self.backward_pass, None
            at_once = len(self.by_rows) == len(self.layers)
            self.grads = backward.run(look if at_once else None)
            if at_once:
                return
        if look is not None:
            for layer in reversed(self.layers):
                look(layer, self.attention(layer))

    def attended(self, layer: int) -> Tensor:  # shape: (B, H, N)
        """What the head's row attends to in one block, head by head."""
        A = self.attention(layer).probs(slice(0, None))
        row = self.row.unsqueeze(1)  # shape: (B, 1, 1, N); where the first alone was recorded, it alone is read
        return (row[..., :1] * A if A.shape[2] == 1 else row @ A).squeeze(2)


def record(call: Pass, target: TargetType, want: Want, start: int = 0) -> Record:
    """One forward pass, and one backward pass as far as block ``start`` if gradients are wanted.

    Blocks before ``start`` run without a graph; the tokens that enter it are the leaf. Call it inside
    :func:`captum_vit.trace.run.state.undisturbed`.

    Raises:
        InputError: an output that is not a number.
        TraceError: a block whose attention was not seen, or a gradient that did not arrive.
    """
    model, transformer, blocks = call.model, call.transformer, call.transformer.blocks
    entrance = blocks[start].entrance
    if want.needs_attention:
        transformer.refuse_attention()
    refuse_incomplete(call, entrance, want.rule)
    if want.relevance:
        refuse_half_precision(model)
    if want.grads or want.row:
        refuse_opaque(call.modules)
    watch = Watch(call, place=blocks[blocks[start].tokens_of].entrance)
    probe = Probe(transformer, want, start)
    probe.attach(watch)
    layouts: dict[int, TokenLayout] = {}
    bias_tap = BiasTap(lambda y, axis: probe.place)
    # The last mode sees a call first; what it writes out, those before it see.
    modes: list[TorchFunctionMode] = [*rule_modes(want.rule)]
    if want.relevance:
        modes = [Relevance(len(call))]
    if want.biases and transformer.refusal is not None:
        layouts = layouts_of_blocks(call, start)
        visits, bias_tap.place = placing(transformer, layouts, lambda: probe.place)
        watch.visits += visits
        modes.append(Cells())
    if want.biases:
        modes.append(bias_tap)
    if want.kinds & ATTENTION:
        by_rows = want.by_rows and not (want.first_row or rule_modes(want.rule) or want.relevance)
        see, instead = probe.see_attention, probe.attend if by_rows else None
        watch.over_attention(AttentionTap(see, len(call), want.first_row, instead), start)
        if want.kinds & set(FACTORS):
            modes.append(QueryTap(probe.see_factors, len(call)))
    elif want.row in ("outputs", "target"):
        watch.behind.append(AttentionTap(probe.see_attention, len(call)))
    head_tap = HeadTap()
    if want.row and not want.relevance:
        watch.behind.append(head_tap)
    again = recomputed(transformer.modules()[start:], want.rule) if want.recompute else nullcontext()
    with carried(model) if want.relevance else nullcontext(), again:
        output = watch.run(*modes)
    probe.refuse_silence(lambda layer: what_ran(call, layer))
    if probe.unsure is not None:
        _refuse_other_order(call, *probe.unsure)
    refuse_not_finite(output.detach(), "output", infinite=False)
    if not want.biases:
        refuse_own_derivatives(call, entrance, want.rule, output)

    seen = probe.seen
    n_tokens = probe.n_tokens if transformer.refusal is None else probe.n_first
    found = Record(watch.described(), watch.layout(n_tokens), output.detach(), {}, start=start)
    found.layouts = layouts
    if want.every_layout and transformer.refusal is not None and not layouts:
        found.layouts = {layer: watch.layout_of_block(layer, x.shape[1]) for layer, x in seen["tokens"].items()}
    found.target, found.at_site = target, probe.at_site
    found.by_rows, cast = probe.by_rows, _precision(dtype_of(model), narrow=want.relevance)
    for rows in found.by_rows.values():
        rows.cast = cast
    if want.row:
        if probe.last_rows is None:
            raise no_graph()
        if transformer.run_past and not output.requires_grad:
            raise of_other_blocks()
        behind = found.layout_of(len(blocks) - 1)
        if probe.last_rows.shape[1] != behind.n_tokens:
            raise _other_rows(probe.last_rows, behind)
        head = Head(behind, output, probe.last_rows, head_tap.made, probe.pool_attention, want.rule == "grad")
        found.pooling = head.read(want.row, target)
        if want.first_row and found.row[..., 1:].any():
            return record(call, target, replace(want, first_row=False), start)
    if transformer.run_past and not want.biases and (want.row or want.site):
        _warn_of_earlier_blocks()
    if want.biases:
        pool = found.row.squeeze(1)
        relevance = BiasesByCell(layouts, pool) if layouts else BiasRelevance(found.layout, pool)
        bias_tap.told.append(relevance.add)
        found.biases = relevance.by_place
    if want.grads:
        if want.readout is None:
            score = select(transform(output, want.score, model), target)
        else:
            out = [seen["out"][layer] for layer in found.layers]
            score = read_by_head(found.call, out, output, found.layout, target, want.readout)
        if want.relevance:
            score = score * score.detach().ne(0)  # of a score of zero there is no relevance to hand back
        wanted = {kind: seen[kind] for kind in want.grads if seen[kind]}
        found.backward_pass = BackwardPass(score, wanted, cast, probe.by_rows, probe.shown)
        if not want.by_rows:
            found.backward()
    if want.biases and want.rule in COMPLETE and not want.incomplete:
        biases = found.biases_behind()[0]
        products = seen["tokens"][start].detach() * found.grads["tokens"][start]
        refuse_gap(want.rule, score, products, biases, bias_tap.eps)
    found.seen = {kind: {layer: x.detach() for layer, x in row.items()} for kind, row in seen.items()}
    kept = [x for row in found.seen.values() for x in row.values()] + [rows.query for rows in found.by_rows.values()]
    found.eps = max((torch.finfo(x.dtype).eps for x in kept), default=0.0)
    found.seen = {kind: {layer: cast(x) for layer, x in row.items()} for kind, row in found.seen.items()}
    found.pooling = None if found.pooling is None else found.pooling._replace(row=cast(found.pooling.row))
    return found


def _other_rows(rows: Tensor, layout: TokenLayout) -> TraceError:
    return TraceError(
        "A last block that keeps the tokens that enter it, where the head's rows are looked for.",
        f"{layout.n_tokens} tokens that enter it, and {rows.shape[1]} that leave it",
        "a method that reads no rows, such as DecompX or CAT.",
    )


def _refuse_other_order(
    call: Pass,
    layer: int,
    found: Tensor,  # shape: (B, H, N, N)
) -> None:
    """The heads of a sample must lie behind one another: the first sample by itself has those of the batch's first."""
    batch, heads = found.shape[:2]
    single = record(call.of_first(), None, Want(seen=["probs"]), layer)
    by_itself = single.seen["probs"][layer][0]
    mixed = found.flatten(0, 1)[::batch]  # were they those of all samples, head by head
    if not (found[0] - by_itself).abs().max() <= (mixed - by_itself).abs().max():
        raise TraceError(
            "Heads of a batch sample by sample.",
            f"all samples of a head before the next head ({heads} heads, {batch} samples), in block {layer}",
            "a batch of one sample.",
        )


def _warn_of_earlier_blocks() -> None:
    warnings.warn(
        "The output is made of tokens of earlier blocks too, which do not run through the last one, as of a head that "
        "reads several layers. This map follows only what leaves the last block. DecompX and CAT from the first block "
        "on leave nothing out.",
        PartialMapWarning,
        stacklevel=7,
    )


def _precision(dtype: torch.dtype | None, narrow: bool) -> Callable[[Tensor], Tensor]:
    """At least as precise as the weights, whatever autocast a model has inside; no more where it was float64."""
    return lambda x: x if dtype is None else x.to(dtype if narrow else torch.promote_types(x.dtype, dtype))
