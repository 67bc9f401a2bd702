"""The row with which the head reads what leaves the last block: found by a gradient, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from captum._utils.typing import TargetType
from torch import Tensor

from captum_vit.errors import TraceError
from captum_vit.tokens import TokenLayout
from captum_vit.trace.modes.explicit import Attention
from captum_vit.trace.record.head import read_at
from captum_vit.trace.run.finite import refuse_not_finite
from captum_vit.trace.run.score import mixed, select
from captum_vit.trace.run.watch import UNHIDDEN

ROWS = ("outputs", "target", "evidence", "evidence by output")
CANCELLED = 1e-4  # a LayerNorm is free of scale but for its epsilon, about 1e-6 of the variance


class Pooling(NamedTuple):
    """How the head reads the rows.

    Attributes:
        row: (B, N), sums to 1; zeros for a sample in which no row is read. (B, C, N) for each of C outputs.
        several: (B, 1), whether more than one row is read in a sample.
    """

    row: Tensor
    several: Tensor


@dataclass(frozen=True)
class Head:
    r"""What lies behind the blocks in one pass, and how it reads their rows.

    With the tokens x where the head reads them (behind the last norm that works token by token, in front of what
    mixes them) and a score s, a kind of row is

    - ``"outputs"``: :math:`w_i = \|\partial s/\partial x_i\|`, where s mixes all outputs with fixed weights, so that no
      target is needed. Of a head that scores every token, the outputs at the target's place are mixed; rows that a
      target's output does not read are left out. Of an attention
      pooling, the attention that it pays, the mean over queries and heads.
    - ``"target"``: the same with the target's output for s.
    - ``"evidence"``: :math:`w_i = (x_i \cdot \partial s/\partial x_i)^+`, of the target's output: what GenAtt's rule
      makes of the head, as one more layer. Of special tokens, which hold what they gathered of other tokens, for the
      target and against it, the absolute value. It is :math:`\|\partial s/\partial x_i\|` for a sample in which this is
      zero in all rows, or zero by algebra in a special token that is read, as in front of a norm of its own. A product
      that is nothing but rounding is zero.
    - ``"evidence by output"``: that of each output.

    Scaled to sum to 1. One row that is read has all of it: a head that reads CLS has the CLS row in all kinds.

    Args:
        layout: where the tokens lie.
        output: (B, K) or (B, ..., K), as the model returned it, with its graph.
        rows: (B, N, D), what leaves the last block, with its graph.
        made: the tensors that the head makes of them, see :class:`captum_vit.trace.record.head.HeadTap`.
        attentions: those behind the last block.
        plain: whether gradients are the plain ones, or those of a rule.
    """

    layout: TokenLayout
    output: Tensor
    rows: Tensor
    made: list[Tensor]
    attentions: list[Attention]
    plain: bool = True

    def read(self, kind: str, target: TargetType) -> Pooling:
        """The row of a kind.

        Raises:
            TraceError: the output does not depend on what leaves the last block, or hides its graph.
            InputError: a gradient that is no finite number.
        """
        if kind == "evidence by output":
            return self._by_output()
        if kind == "outputs":
            return self._of_target(self._weights(mixed(self.output, target)), target)
        score = select(self.output, target).sum()
        return self._evidence(score) if kind == "evidence" else self._weights(score)

    def _of_target(self, pooling: Pooling, target: TargetType) -> Pooling:
        """Without the rows that only other outputs read, as of an output for each word, or for each place."""
        if target is None or not pooling.several.any():
            return pooling
        reached, _ = self._reached(select(self.output, target).sum())
        row = _scaled(pooling.row * (reached | ~reached.any(1, keepdim=True)))
        return Pooling(row, row.ne(0).sum(1, keepdim=True) > 1)

    def _by_output(self) -> Pooling:
        whole = self._weights(mixed(self.output))
        if not whole.several.any():
            return whole
        each = [self._evidence(score).row for score in self.output.flatten(1).sum(0)]
        return Pooling(torch.stack(each, 1), whole.several)

    def _weights(self, score: Tensor) -> Pooling:
        reached, several = self._reached(score)
        if not several.any():
            return Pooling(reached.to(self.rows), several)
        lengths, _, _ = self._gradient(score)
        return Pooling(self._attended(score, _scaled(lengths * reached)).to(self.rows), several)

    def _evidence(self, score: Tensor) -> Pooling:
        reached, several = self._reached(score)
        if not several.any():
            return Pooling(reached.to(self.rows), several)
        lengths, products, by_algebra = self._gradient(score)
        products = products.masked_fill(by_algebra, 0.0)
        evidence, special = products.clamp(min=0), self.layout.special
        evidence[:, special] = products[:, special].abs()
        counts = evidence.any(1, keepdim=True) & ~(reached & by_algebra)[:, special].any(1, keepdim=True)
        return Pooling(_scaled(evidence.where(counts, lengths)).to(self.rows), several)

    def _gradient(self, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # shape of each: (B, N)
        """Where the head reads the rows: length of the gradient, token times gradient, and whether that vanishes."""
        at = read_at(self.rows, score, self.made, self.plain)
        (g,) = torch.autograd.grad(score, at.x, retain_graph=True)
        x, g = (at.tokens(y.detach()).to(torch.promote_types(y.dtype, torch.float32)) for y in (at.x, g))
        lengths, products = g.norm(dim=-1), (x * g).sum(-1)
        vanishes = products.abs() <= CANCELLED * x.norm(dim=-1) * lengths
        shape = len(self.rows), self.layout.n_tokens
        return at.by_row(lengths, shape), at.by_row(products, shape), at.by_row(vanishes, shape)

    def _attended(self, score: Tensor, weights: Tensor) -> Tensor:  # (B, N) -> the same
        """For samples whose score an attention pooling feeds, the first one, the attention that it pays."""
        read_by = [a for a in self.attentions if a.context.requires_grad]
        contexts = [a.context for a in read_by]
        grads = torch.autograd.grad(score, contexts, retain_graph=True, allow_unused=True) if contexts else ()
        for attention, g in reversed(list(zip(read_by, grads, strict=True))):
            if g is not None:
                attended = attention.probs.detach().mean((1, 2))
                of_all = attended.shape[1] == self.layout.n_tokens
                attended = attended if of_all else self.layout.lengthened(attended)
                weights = torch.where(g.flatten(1).any(1, keepdim=True), attended.to(weights), weights)
        return weights

    def _reached(self, score: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (B, N), (B, 1)
        """The rows where a gradient arrives from a score, and whether that are several."""
        if not score.requires_grad:
            raise no_graph()
        (g,) = torch.autograd.grad(score, self.rows, retain_graph=True, allow_unused=True)
        if g is None:
            raise of_other_blocks()
        reached = torch.linalg.vector_norm(g, torch.inf, dim=-1)
        refuse_not_finite(reached, "gradient of the outputs at the last block")
        return reached.ne(0), reached.ne(0).sum(1, keepdim=True) > 1


def of_other_blocks() -> TraceError:
    """The error where the output is made of other blocks than the last one."""
    return TraceError(
        "A head that reads the tokens that leave the last block: attention is read in the rows that it reads.",
        "outputs without a gradient there: they depend on tokens of other blocks, such as recorded hidden states",
        "a method that looks for no rows, such as LayerCDAM or DecompX, or a head on the last block.",
    )


def no_graph() -> TraceError:
    """The error where no gradient can run from the output to the last block."""
    return TraceError("An output that depends on the last block.", "an output without a graph", UNHIDDEN)


def _scaled(weights: Tensor) -> Tensor:
    """To a sum of 1; zeros stay."""
    total = weights.sum(-1, keepdim=True)
    return weights / total.where(total > 0, torch.ones_like(total))
