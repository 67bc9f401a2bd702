"""Which rows of the last block the head reads, and with what weights: found by looking."""

from __future__ import annotations

from typing import Any

import torch
from captum._utils.typing import TargetType
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import TraceError
from captum_vit.models.transformer import Transformer
from captum_vit.tokens import TokenLayout
from captum_vit.trace.modes.explicit import Attention
from captum_vit.trace.run.finite import refuse_not_finite
from captum_vit.trace.run.score import select
from captum_vit.trace.run.watch import UNHIDDEN


def pooling_weights(
    transformer: Transformer,
    layout: TokenLayout,
    output: Tensor,  # shape: (B, K), or (B, ..., K)
    target: TargetType,
    rows: Tensor | None,  # shape: (B, N, D), what leaves the last block
    attentions: list[Attention],  # those after the last block
) -> Tensor:  # shape: (B, N), rows sum to 1; zeros for a sample of which no row is read
    """The generalised CLS row: one-hot for CLS pooling, equal for mean pooling, attended for attention pooling.

    A row is read if a gradient arrives there from a fixed mixture of all outputs (no single output need
    depend on it, nor does a target have to be known). Of a head that scores every token, those of the target's
    token are mixed, if a target is given. A sample whose outputs have no gradient at all (a dead ReLU, a head that
    is all zeros) has no row that is read; what others of its batch read is another matter.
    """
    score = _mixed(output, target)
    read_by = [a for a in attentions if a.context.requires_grad]
    if rows is None or not score.requires_grad:
        raise TraceError("An output that depends on the last block.", "an output without a graph", UNHIDDEN)
    places = [rows, *(a.context for a in read_by)]
    by_rows, *by_context = torch.autograd.grad(score, places, retain_graph=True, allow_unused=True)
    if by_rows is None:
        raise TraceError(
            "A head that reads the tokens that leave the last block: attention is read in the rows that it reads.",
            "outputs without a gradient there: they depend on tokens of other blocks, such as recorded hidden states",
            "a method that looks for no rows, such as LayerCDAM or DecompX, or a head on the last block.",
        )
    reached = torch.linalg.vector_norm(by_rows, torch.inf, dim=-1)
    refuse_not_finite(reached, "gradient of the outputs at the last block")
    read = reached.ne(0).to(rows.dtype)  # not the output's: a wrapper may have widened that
    if transformer.pool is not None:
        in_front = transformer.pool(layout.n_tokens, len(layout.special)).to(read)  # special tokens first
        read = read * layout.in_sequence(in_front)
    weights = F.normalize(read, p=1, dim=-1)  # zeros stay
    for attention, g in reversed(list(zip(read_by, by_context, strict=True))):
        if g is not None:  # an attention pooling: it counts for those samples whose output it feeds, the first one
            attended = attention.probs.detach().mean((1, 2))
            attended = attended if attended.shape[1] == layout.n_tokens else layout.lengthened(attended)
            weights = torch.where(g.flatten(1).any(1, keepdim=True), attended.to(weights), weights)
    return weights


def _mixed(output: Tensor, target: TargetType) -> Tensor:
    """A scalar that depends on every output, or on every one at the target's place."""
    places = [_place(one, output.dim() - 2) for one in (target if isinstance(target, list) else [target])]
    if all(places):
        mixture = torch.cos(torch.arange(1, output.shape[-1] + 1, device=output.device, dtype=output.dtype))
        mixed = (output * mixture).sum(-1)
        return select(mixed, places if isinstance(target, list) else places[0]).sum()
    mixture = torch.cos(torch.arange(1, output[0].numel() + 1, device=output.device, dtype=output.dtype))
    return (output.reshape(len(output), -1) * mixture).sum()


def _place(target: Any, depth: int) -> tuple[int, ...]:
    """Of (position, class) the position; nothing of a class alone."""
    return (target if isinstance(target, tuple) else (target,) if isinstance(target, int) else ())[: max(depth, 0)]
