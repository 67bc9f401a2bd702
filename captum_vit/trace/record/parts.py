"""The stream behind an attention as a sum of parts, one from each token; never all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

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
    r"""What every token j adds to rows i: :math:`T_{ij} = \sum_k c_{jik}\, u_{jk}`.

    Every token has K vectors of its own (one from each head, and perhaps itself), and every pair of tokens K
    numbers; so parts are known without a vector for each pair. Numbers are those of a few rows at a time.
    """

    n_tokens: int
    coefficients: Callable[[Tensor], Tensor]  # which rows (R,) -> (B, N, R, K)
    vectors: Callable[[slice], Tensor]  # some of the tokens -> (B, J, K, D)

    def with_stream(self, x: Tensor) -> Parts:  # x: (B, N, D)
        """The row's own vector too, which is a part from itself."""

        def coefficients(rows: Tensor) -> Tensor:
            own = torch.zeros(x.shape[1], len(rows), 1).to(x)
            own[rows, torch.arange(len(rows), device=x.device)] = 1
            return torch.cat([self.coefficients(rows), own.expand(len(x), -1, -1, -1)], -1)

        return Parts(
            self.n_tokens, coefficients, lambda some: torch.cat([self.vectors(some), x[:, some].unsqueeze(2)], 2)
        )

    def through(self, norm: FrozenNorm) -> Parts:
        """Each part as the norm passes it on."""

        def coefficients(rows: Tensor) -> Tensor:
            c = self.coefficients(rows)
            return c * norm.scale[:, rows].to(c)[:, None, :, None]

        return Parts(self.n_tokens, coefficients, lambda some: norm.unscaled(self.vectors(some)))

    def plus(self, other: Parts) -> Parts:
        """The sum of two decompositions of the same rows."""
        return Parts(
            self.n_tokens,
            lambda rows: torch.cat([self.coefficients(rows), other.coefficients(rows)], -1),
            lambda some: torch.cat([self.vectors(some), other.vectors(some)], 2),
        )

    def lengths(self, rows: Tensor) -> Tensor:  # shape: (B, R, N)
        r"""Euclidean, from the Gram matrix of each token's own vectors: :math:`\|T_{ij}\|^2 = c^T (u u^T) c`."""
        squares = [_squares(c, g) for c, g in self._chunks(rows, self._grams)]
        return torch.cat(squares, 1).clamp_(min=0).sqrt_().mT

    def nearer_by_lengths(self, rows: Tensor, y: Tensor) -> Tensor:  # y: (B, R, D) -> (B, R, N)
        r"""How much closer to zero each part brings y, :math:`\|y_i\|_2 - \|y_i - T_{ij}\|_2`, from Gram matrices."""
        shares, length = [], y.norm(dim=-1).unsqueeze(1)  # shape: (B, 1, R)
        for c, u in self._chunks(rows, self.vectors):
            dot = (torch.einsum("brd,bjkd->bjrk", y, u) * c).sum(-1)  # shape: (B, J, R)
            gained = 2 * dot - _squares(c, u @ u.mT)  # |y|^2 - |y - T|^2
            left = (length.pow(2) - gained).clamp(min=0).sqrt()
            shares.append(gained / (length + left).clamp_min(torch.finfo(y.dtype).tiny))
        return torch.cat(shares, 1).mT

    def nearer_by_sums(self, rows: Tensor, y: Tensor) -> Tensor:  # y: (B, R, D) -> (B, R, N)
        r"""As above with sums of absolute values, :math:`\|y_i\|_1 - \|y_i - T_{ij}\|_1`.

        These need every vector. Those of a few tokens in one sample exist at a time.
        """
        left = [
            torch.stack([torch.baddbmm(y[b], c[b], u[b], alpha=-1).abs_().sum(-1) for b in range(len(y))])
            for c, u in self._chunks(rows, self.vectors, width=len(rows))
        ]
        return y.abs().sum(-1).unsqueeze(2) - torch.cat(left, 1).mT

    @cached_property
    def _all_grams(self) -> Tensor:  # shape: (B, N, K, K)
        """The products of each token's own vectors, once for all rows."""
        return torch.cat([u @ u.mT for u in map(self.vectors, self._slices(1))], 1)

    def _grams(self, some: slice) -> Tensor:
        return self._all_grams[:, some]

    def _chunks(self, rows: Tensor, of: Callable[[slice], Tensor], width: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Coefficients of some rows, and vectors or what is made of them, of a few tokens at a time."""
        c = self.coefficients(rows)
        return ((c[:, some], of(some)) for some in self._slices(max(width, c.shape[-1])))

    def _slices(self, width: int) -> Iterator[slice]:
        """Of the tokens, such that no more than CHUNK * N vectors exist."""
        size = max(1, CHUNK * self.n_tokens // width)
        return (slice(start, start + size) for start in range(0, self.n_tokens, size))


def _squares(c: Tensor, gram: Tensor) -> Tensor:  # (B, J, R, K), (B, J, K, K) -> (B, J, R)
    return ((c @ gram) * c).sum(-1)


def attention_parts(found: Record, layer: int) -> Parts:
    """What a block's attention writes into rows, token by token: values through the output projection.

    Values have their bias; the bias of the output projection belongs to no token. In float32 for models of
    half precision.
    """
    attention = found.attention(layer)
    v = widened(found.seen["values"][layer])  # shape: (B, H, N, d)
    W = widened(written_by_heads(found, layer))  # shape: (H, d, D)

    def coefficients(rows: Tensor) -> Tensor:
        first, last = int(rows[0]), int(rows[-1])
        A = widened(attention.probs(slice(first, last + 1))[:, :, rows - first])  # shape: (B, H, R, N)
        return A.permute(0, 3, 2, 1).contiguous()

    return Parts(v.shape[2], coefficients, lambda some: torch.einsum("bhjd,hdD->bjhD", v[:, :, some], W))


def stream_parts(found: Record, layer: int) -> Parts:
    """The same with the residual stream; in a post-norm block through the norm that follows. It needs ``mid_kinds``."""
    parts = attention_parts(found, layer).with_stream(widened(found.seen["tokens"][layer]))
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
