"""What happened in every block during one pass: tokens, attention, and gradients of the target there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from captum._utils.typing import TargetType
from torch import Tensor, nn

from captum_vit.errors import TraceError
from captum_vit.models.spec import Transformer
from captum_vit.tokens import TokenLayout
from captum_vit.trace.attention import Attention, AttentionTap
from captum_vit.trace.pooling import pooling_weights
from captum_vit.trace.rules import rule_modes
from captum_vit.trace.score import select, transform
from captum_vit.trace.site import Site, Visit
from captum_vit.trace.watch import Watch

KINDS = ("tokens", "attn_in", "probs", "values", "context", "mid", "before_norm", "out")
ATTENTION = {"probs", "values", "context"}


@dataclass
class Record:
    """One pass over a batch: by kind and block, what was seen and the gradients there.

    Shapes: tokens (B, N, D), probabilities (B, H, N, N), values and contexts (B, H, N, d).
    """

    transformer: Transformer
    layout: TokenLayout
    output: Tensor  # shape: (B, K), as the model returned it
    seen: dict[str, dict[int, Tensor]]
    grads: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    pool: Tensor | None = None  # shape: (B, N), the weights with which the head reads the last rows
    at_site: Tensor | None = None  # the tensor at the site that was asked for
    start: int = 0
    inputs: tuple[Tensor, ...] = ()
    args: tuple[Any, ...] = ()
    target: TargetType = None

    @property
    def row(self) -> Tensor:  # shape: (B, 1, N)
        """The CLS row's place: one-hot for CLS pooling, else the weights of the rows that the pooling reads."""
        if self.pool is None:
            raise TraceError("A record with pooling weights.", "one made without", "Want(pool=True).")
        return self.pool.unsqueeze(1)

    @property
    def layers(self) -> range:
        """The blocks that were recorded."""
        return range(self.start, len(self.transformer.blocks))

    def attended(self, layer: int) -> Tensor:  # shape: (B, H, N)
        """What the head's row attends to in one block, head by head."""
        A = self.seen["probs"][layer]
        return (A if A.shape[2] == 1 else self.row.unsqueeze(1) @ A).squeeze(2)


@dataclass(frozen=True)
class Want:
    """What a method needs to see: kinds of tensors, kinds of gradients, and how the graph is built.

    Args:
        seen: kinds to keep, of ``KINDS``: ``tokens`` enter the block, ``attn_in`` enters the attention,
            ``mid`` is the stream between attention and feed-forward, ``before_norm`` what a post-norm
            block normalises last, ``out`` leaves the block.
        grads: kinds whose gradient is needed too.
        score: what is differentiated, ``"logit"``, ``"prob"`` or ``"auto"``.
        rule: the rule under which the graph is built, of ``RULES``.
        pool: find the rows that the head reads.
        first_row: of ``probs`` the first row will do where the head reads that row alone (CLS pooling); it is
            much cheaper. Of a model whose head reads others, all rows are recorded after all, by a second pass.
        site: one more place whose tensor is kept.
    """

    seen: Collection[str] = ()
    grads: Collection[str] = ()
    score: str = "logit"
    rule: str = "grad"
    pool: bool = False
    first_row: bool = False
    site: Site | None = None

    @property
    def kinds(self) -> set[str]:
        return {*self.seen, *self.grads}


def record(
    model: nn.Module,
    transformer: Transformer,
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
    target: TargetType,
    want: Want,
    start: int = 0,
) -> Record:
    """One forward pass, and one backward pass as far as block ``start`` if gradients are wanted.

    Blocks before ``start`` run without a graph; the tokens that enter it are the leaf. Call it inside
    :func:`captum_vit.trace.state.undisturbed`.

    Raises:
        TraceError: a block whose attention was not seen, or a gradient that did not arrive.
    """
    watch = Watch(model, transformer)
    probe = _Probe(transformer, want, start)
    probe.attach(watch)
    modes = rule_modes(want.rule)
    if want.pool or want.kinds & ATTENTION:
        modes.append(
            AttentionTap(probe.see_attention, want.first_row)
        )  # on top: what it writes out, the rule below sees
    output = watch.run(inputs, args, *modes)
    probe.refuse_silence()

    seen = probe.seen
    found = Record(transformer, watch.layout(probe.n_tokens), output.detach(), {}, start=start)
    found.inputs, found.args, found.target, found.at_site = inputs, args, target, probe.at_site
    if want.pool:
        found.pool = pooling_weights(transformer, found.layout, output, target, probe.last_rows, probe.pool_attention)
        if want.first_row and found.pool[:, 1:].any():
            return record(model, transformer, inputs, args, target, replace(want, first_row=False), start)
    if want.grads:
        score = select(transform(output, want.score, model), target)
        found.grads = _gradients(score, {kind: seen[kind] for kind in want.grads})
    found.seen = {kind: {layer: x.detach() for layer, x in row.items()} for kind, row in seen.items()}
    return found


def _gradients(
    score: Tensor,  # shape: (B,)
    seen: dict[str, dict[int, Tensor]],
) -> dict[str, dict[int, Tensor]]:
    """Gradients of the score at all these tensors, from one backward pass."""
    if not score.requires_grad:
        raise TraceError(
            "A score that depends on the tokens with a gradient.",
            "an output without a graph",
            "a model whose forward does not detach, or run under no_grad or inference_mode by itself.",
        )
    places = [(kind, layer) for kind, row in seen.items() for layer in row]
    wanted = [seen[kind][layer] for kind, layer in places]
    grads = torch.autograd.grad(score.sum(), wanted, allow_unused=True)
    if all(g is None for g in grads):
        raise TraceError("Gradients at the blocks.", "none arrived", "a target that depends on these blocks.")
    found: dict[str, dict[int, Tensor]] = {kind: {} for kind in seen}
    for (kind, layer), x, g in zip(places, wanted, grads, strict=True):
        found[kind][layer] = torch.zeros_like(x) if g is None else g
    return found


class _Probe:
    """Follows a pass from block to block and keeps what is wanted."""

    def __init__(self, transformer: Transformer, want: Want, start: int) -> None:
        self.transformer, self.want, self.start = transformer, want, start
        self.seen: dict[str, dict[int, Tensor]] = defaultdict(dict)
        self.pool_attention: list[Attention] = []
        self.last_rows: Tensor | None = None
        self.at_site: Tensor | None = None
        self.n_tokens = 0
        self._block: int | None = None
        self._done = False

    def attach(self, watch: Watch) -> None:
        spec, blocks = self.transformer.spec, self.transformer.blocks
        for layer, block in enumerate(blocks):
            watch.at(Site(self.transformer.entrance(layer), "input"), self._enter(layer))
            if layer >= self.start:
                parts = {"attn_in": spec.attn, "mid": spec.mid, "before_norm": spec.last_norm}
                for kind, path in parts.items():
                    if kind in self.want.kinds and path is not None:
                        site = Site(self.transformer.part(block, path), "input")
                        watch.at(site, self._keep(kind, layer))
            watch.at(Site(block, "output"), self._leave(layer, last=layer == len(blocks) - 1))
        if self.want.site is not None:
            watch.at(self.want.site, self._keep_site)

    def _keep_site(self, x: Tensor) -> None:
        self.at_site = x

    def _keep(self, kind: str, layer: int) -> Visit:
        return lambda x: self.seen[kind].__setitem__(layer, x)

    def _enter(self, layer: int) -> Visit:
        def visit(x: Tensor) -> Tensor | None:
            self._block, self.n_tokens = layer, x.shape[1]
            leaf = None
            if layer == self.start and self.want.grads:
                torch.set_grad_enabled(True)
                leaf = x = x.detach().requires_grad_()
            if "tokens" in self.want.kinds and layer >= self.start:
                self.seen["tokens"][layer] = x
            return leaf

        return visit

    def _leave(self, layer: int, last: bool) -> Visit:
        def visit(x: Tensor) -> Tensor | None:
            self._block, self._done = None, last
            rows = None
            if last and self.want.pool:
                if not x.requires_grad:
                    torch.set_grad_enabled(True)
                    rows = x = x.detach().requires_grad_()
                self.last_rows = x
            if "out" in self.want.kinds and layer >= self.start:
                self.seen["out"][layer] = x
            return rows

        return visit

    def see_attention(self, attention: Attention) -> None:
        if self._block is None:
            if self._done:
                self.pool_attention.append(attention)
            return
        if self._block < self.start:
            return
        for kind, tensor in vars(attention).items():
            if kind in self.want.kinds:
                if self._block in self.seen[kind]:
                    raise TraceError(
                        "One attention in every block.",
                        f"more than one in block {self._block}",
                        "a method that does not read attention, such as LayerCDAM or DecompX.",
                    )
                self.seen[kind][self._block] = tensor

    def refuse_silence(self) -> None:
        """A kind that was not seen in some block would otherwise be a map of nothing."""
        layers = range(self.start, len(self.transformer.blocks))
        for kind in self.want.kinds:
            missing = [layer for layer in layers if layer not in self.seen[kind]]
            if missing:
                raise TraceError(
                    f"The {kind} of every block from {self.start} on.",
                    f"nothing seen in blocks {missing}",
                    "an attention that runs in Python as softmax and matmul or through PyTorch's "
                    "scaled_dot_product_attention; for flash or flex kernels load the model with "
                    'attn_implementation="sdpa", and pass the bare model, not one that runs in other threads.',
                )
