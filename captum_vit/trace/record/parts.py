"""The stream behind an attention as a sum of parts, one from each token; never all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.transformer import Transformer
from captum_vit.trace.record.frozen_norm import FrozenNorm, frozen_norm
from captum_vit.trace.record.record import Record
from captum_vit.trace.record.written_by_heads import written_by_heads
from captum_vit.trace.run.state import widened

CHUNK = 4  # parts of full width are held for so many tokens at a time


@dataclass(frozen=True)
class Parts:
    r"""What every token j adds to some rows i: :math:`T_{ij} = \sum_k c_{jik}\, u_{jk}`.

    Every token has K vectors of its own (one from each head, and perhaps itself), and every pair of tokens K
    numbers; so parts are known without a vector for each pair.
    """

    rows: Tensor  # shape: (R,), which rows
    coefficients: Tensor  # shape: (B, N, R, K)
    vectors: Callable[[slice], Tensor]  # some of the tokens -> (B, J, K, D)

    def with_stream(self, x: Tensor) -> Parts:  # x: (B, N, D)
        """The row's own vector too, which is a part from itself."""
        n = x.shape[1]
        own = torch.zeros(n, len(self.rows), 1).to(x)
        own[self.rows, torch.arange(len(self.rows), device=x.device)] = 1
        return Parts(
            self.rows,
            torch.cat([self.coefficients, own.expand(len(x), -1, -1, -1)], -1),
            lambda some: torch.cat([self.vectors(some), x[:, some].unsqueeze(2)], 2),
        )

    def through(self, norm: FrozenNorm) -> Parts:
        """Each part as the norm passes it on."""
        scale = norm.scale[:, self.rows].to(self.coefficients)[:, None, :, None]
        return Parts(self.rows, self.coefficients * scale, lambda some: norm.unscaled(self.vectors(some)))

    def plus(self, other: Parts) -> Parts:
        """The sum of two decompositions of the same rows."""
        return Parts(
            self.rows,
            torch.cat([self.coefficients, other.coefficients], -1),
            lambda some: torch.cat([self.vectors(some), other.vectors(some)], 2),
        )

    def lengths(self) -> Tensor:  # shape: (B, R, N)
        r"""Euclidean, from the Gram matrix of each token's own vectors: :math:`\|T_{ij}\|^2 = c^T (u u^T) c`."""
        squares = [((c @ (u @ u.mT)) * c).sum(-1) for c, u in self._chunks(width=1)]
        return torch.cat(squares, 1).clamp_(min=0).sqrt_().mT

    def nearer_by_lengths(self, y: Tensor) -> Tensor:  # y: (B, R, D) -> (B, R, N)
        r"""How much closer to zero each part brings y, :math:`\|y_i\|_2 - \|y_i - T_{ij}\|_2`, from Gram matrices."""
        shares, length = [], y.norm(dim=-1).unsqueeze(1)  # shape: (B, 1, R)
        for c, u in self._chunks(width=1):
            square = ((c @ (u @ u.mT)) * c).sum(-1)  # shape: (B, J, R)
            dot = (torch.einsum("brd,bjkd->bjrk", y, u) * c).sum(-1)
            gained = 2 * dot - square  # |y|^2 - |y - T|^2
            left = (length.pow(2) - gained).clamp(min=0).sqrt()
            shares.append(gained / (length + left).clamp_min(torch.finfo(y.dtype).tiny))
        return torch.cat(shares, 1).mT

    def nearer_by_sums(self, y: Tensor) -> Tensor:  # y: (B, R, D) -> (B, R, N)
        r"""As above with sums of absolute values, :math:`\|y_i\|_1 - \|y_i - T_{ij}\|_1`.

        These need every vector. Those of a few tokens in one sample exist at a time.
        """
        left = [
            torch.stack([torch.baddbmm(y[b], c[b], u[b], alpha=-1).abs_().sum(-1) for b in range(len(y))])
            for c, u in self._chunks(width=len(self.rows))
        ]
        return y.abs().sum(-1).unsqueeze(2) - torch.cat(left, 1).mT

    def _chunks(self, width: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Coefficients and vectors of a few tokens at a time, such that no more than CHUNK * N vectors exist."""
        n, _, k = self.coefficients.shape[1:]
        size = max(1, CHUNK * n // max(width, k))
        for start in range(0, n, size):
            some = slice(start, start + size)
            yield self.coefficients[:, some], self.vectors(some)


def attention_parts(found: Record, layer: int, rows: Tensor) -> Parts:
    """What a block's attention writes into some rows, token by token: values through the output projection.

    Values have their bias; the bias of the output projection belongs to no token. In float32 for models of
    half precision.
    """
    first, last = int(rows[0]), int(rows[-1])
    A = widened(found.attention(layer).probs(slice(first, last + 1))[:, :, rows - first])  # shape: (B, H, R, N)
    v = widened(found.seen["values"][layer])  # shape: (B, H, N, d)
    W = widened(written_by_heads(found, layer))  # shape: (H, d, D)
    return Parts(
        rows, A.permute(0, 3, 2, 1).contiguous(), lambda some: torch.einsum("bhjd,hdD->bjhD", v[:, :, some], W)
    )


def stream_parts(found: Record, layer: int, rows: Tensor) -> Parts:
    """The same with the residual stream; in a post-norm block through the norm that follows. It needs ``mid_kinds``."""
    parts = attention_parts(found, layer, rows).with_stream(widened(found.seen["tokens"][layer]))
    if not found.transformer.post_norm:
        return parts
    norm = found.transformer.part(layer, "first_norm")
    return parts.through(frozen_norm(norm, found.seen["before_mid"][layer]))


def mid_kinds(transformer: Transformer) -> list[str]:
    """What must be seen of every block to take its stream between attention and feed-forward apart.

    Raises:
        UnsupportedModelError: a post-norm block whose norm behind the attention is not known.
    """
    if transformer.post_norm and any(block.first_norm is None for block in transformer.blocks):
        raise UnsupportedModelError(
            "A post-norm block whose norm behind the attention is known.",
            f"{transformer.family}, whose `first_norm` is None",
            "captum_vit.register_spec with `first_norm`, or AttIN, which stops before that norm.",
        )
    return ["probs", "values", *branch_kinds(transformer)]


def branch_kinds(transformer: Transformer) -> list[str]:
    """The stream before and after the attention, where it is known: what the heads write is compared with it."""
    after = "before_mid" if transformer.post_norm else "mid"
    return ["tokens", *([after] if all(getattr(block, after) is not None for block in transformer.blocks) else [])]
