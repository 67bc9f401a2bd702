"""Identities of sums: relevance that adds up to the score, heads that add up to what the stream gains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from captum_vit.doctor.rounding import smallest
from captum_vit.doctor.subject import Residual, Subject
from captum_vit.errors import TraceError
from captum_vit.models.transformer import Transformer
from captum_vit.trace.record.record import Record, Want, record
from captum_vit.trace.record.rollout import gradient_x_input
from captum_vit.trace.record.written_by_heads import output_map
from captum_vit.trace.run.score import select
from captum_vit.trace.run.state import undisturbed


def completeness(rule: str) -> Callable[[Subject], Residual]:
    """Tokens and biases against the score, under a rule."""
    return partial(_completeness, rule=rule)


def _completeness(subject: Subject, rule: str) -> Residual:
    want = Want(grads=["tokens"], rule=rule, row="target", biases=True, incomplete=True)
    with undisturbed(subject.model):
        found = record(subject.call, subject.target, want)
        score = select(found.output, subject.target).double().sum()
    products = [product.double() for product in gradient_x_input(found)]
    biases = torch.stack([found.biases_of(layer).double() for layer in found.layers])
    off = products[0].sum() + biases.sum() - score
    terms = score.square() + biases.square().sum()
    for product in products:  # each block rounds what enters it, entry by entry, and once for each token in its norm
        terms = terms + product.square().sum() + product.sum(-1).square().sum()
    under = sum(float(x.double().abs().clamp(min=1).square().sum()) for x in found.seen["tokens"].values())
    step = smallest(found.grads["tokens"][0].dtype)
    rounding = (subject.eps**2 * float(terms) + step**2 * under) ** 0.5
    return Residual(abs(float(off)), rounding, abs(float(score)))


def heads(subject: Subject) -> Residual:
    """In each block, what the heads write against what the stream gains; the worst block."""
    found = subject.attended
    if found is None:
        got = "a pass in which it was not seen"
        raise TraceError("The attention of every block, written out.", got, "what the problem above proposes.")
    with undisturbed(subject.model):
        parts = [part for layer in found.layers for part in _of_block(found, layer, subject.eps)]
    return max(parts, key=lambda part: float("inf") if part.off != part.off else part.off / (part.rounding or 1e-300))


def _of_block(found: Record, layer: int, eps: float) -> Iterator[Residual]:
    block, where = found.transformer.blocks[layer], f"Worst in block {layer}"
    stream = found.seen["tokens"][layer]
    behind = found.seen["mid" if block.first_norm is None else "before_mid"][layer]
    written, squares = _written(found, layer)
    yield _residual(behind.double() - stream.double(), written, [stream, behind], squares, eps, f"{where}.")
    for name, before, after in (("first_norm", "before_mid", "mid"), ("last_norm", "before_norm", "out")):
        norm = getattr(block, name)
        if norm is not None:
            normalised = norm(found.seen[before][layer])
            made = found.seen[after][layer]
            yield _residual(made.double(), normalised.double(), [made], 0, eps, f"{where}, behind `{name}`.")


def _residual(
    found: Tensor, wanted: Tensor, terms: list[Tensor], squares: Tensor | float, eps: float, where: str
) -> Residual:
    rounded = sum((term.double().square() for term in terms), torch.zeros_like(wanted)) + squares
    size = float(terms[-1].double().norm())
    step = smallest(terms[-1].dtype) * wanted.numel() ** 0.5
    return Residual(float((found - wanted).norm()), eps * float(rounded.sum().sqrt()) + step, size, where)


def _written(found: Record, layer: int) -> tuple[Tensor, Tensor]:  # shapes: (B, N, D)
    """What the heads of a block write into the stream, and the sum of the squares of all that is rounded for it."""
    probs, values = (found.seen[kind][layer].double() for kind in ("probs", "values"))
    W, bias = output_map(found.transformer, layer, found.seen["values"][layer])
    W = W.double()  # shape: (H, d, D)
    context = probs @ values
    written = torch.einsum("bhid,hdD->biD", context, W)
    squares = torch.einsum("bhid,hdD->biD", context.square() + probs.square() @ values.square(), W.square())
    if bias is not None:
        bias = bias.double()
        written, squares = written + bias, squares + bias.square()
    return written, squares + written.square()


def stream_kinds(transformer: Transformer) -> list[str]:
    """What must be seen of every block for :func:`heads`; of a post-norm block its norms too."""
    first = transformer.blocks[0]
    norms = (("before_mid", first.first_norm), ("before_norm", first.last_norm), ("out", first.last_norm))
    return ["tokens", "probs", "values", "mid", *(kind for kind, norm in norms if norm is not None)]
