"""Attention itself, without a target."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn

from captum_vit.attr.base import TokenAttribution
from captum_vit.errors import OptionError
from captum_vit.models.transformer import Transformer
from captum_vit.options import integer_or_none
from captum_vit.trace.modes.by_rows import Rows, weighing
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.record.rollout import rolled_out
from captum_vit.trace.run.layers import Layer, block_index, layer_index


class RawAttention(TokenAttribution):
    r"""How much the head's row attends to each token in one block, averaged over heads or in one of them.

    .. math:: S_j = E_h[A^h_{\mathrm{CLS}, j}] \qquad\text{or}\qquad S_j = A^h_{\mathrm{CLS}, j}

    Not negative, a share of 1; the same for every target. Where there is no CLS token, the rows that the pooling
    reads, with its weights. Costs one forward pass; no gradient, but for a backward pass
    through the head, which finds those rows.

    Departs from common implementations in what they assume: a CLS token, an attention that was written out
    (fused kernels return none), and one prefix token to cut off.

    Args:
        forward_func: the model, or a target module around it.
        layer: the block: its index, itself, its name, or a module inside it; the last by default.
        output: see :class:`TokenAttribution`.
        head: index of one head, negative ones from the end; None means the average over all.

    Raises:
        OptionError: the block has no such head.

    Source: the attention map of Caron et al. (DINO), "raw attention" in the papers that compare with it.
    """

    reads_layer = True

    def __init__(
        self, forward_func: nn.Module, layer: Layer = None, *, output: str = "grid", head: int | None = None
    ) -> None:
        super().__init__(forward_func, layer, output=output)
        self.head = integer_or_none("head", head, least=None, hint="head=0, or None for the average over heads.")

    def want(self, transformer: Transformer) -> Want:
        return Want(seen=["probs"], row="outputs", first_row=True)

    def start(self, transformer: Transformer) -> int:
        return block_index(self.model, transformer, self.layer)

    def relevance(self, found: Record) -> Tensor:
        return self._of_heads(found.attended(found.start))

    def layer_maps(self, found: Record) -> list[Tensor]:
        return [self._of_heads(found.attended(layer)) for layer in found.layers]

    def _of_heads(self, attended: Tensor) -> Tensor:  # (B, H, N) -> (B, N)
        if self.head is None:
            return attended.mean(1)
        heads = attended.shape[1]
        if not -heads <= self.head < heads:
            raise OptionError(f"A head from 0 to {heads - 1} (or -1 to {-heads}).", repr(self.head), "head=None.")
        return attended[:, self.head]


class AttentionRollout(TokenAttribution):
    r"""Attention followed through all blocks, with the residual stream as an equal partner.

    .. math:: R = \prod_{l} \tfrac12 (E_h[A_l] + I)

    The map is the CLS row of the product (or the rows that the pooling reads). Not negative; the same
    for every target. Costs one forward pass, and each block's attention once more, of which some rows exist at a
    time (:func:`captum_vit.attention_memory`). A row vector times matrices, from the last block to the first.

    Rows of each factor sum to 1, as in the source. Common implementations differ: the model of Transformer Attribution
    leaves the rows unnormalised (each factor twice ours: the same ranking, 2^L the size) where its generator of
    explanations does not, and its scripts begin at ``start_layer=1``.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: the first block of the product.
        output: see :class:`TokenAttribution`.

    Source: Abnar and Zuidema, Quantifying Attention Flow in Transformers.
    """

    reads_layer = True

    def __init__(self, forward_func: nn.Module, start_layer: int = 0, *, output: str = "grid") -> None:
        super().__init__(forward_func, start_layer, output=output)

    def want(self, transformer: Transformer) -> Want:
        return Want(seen=["probs"], row="outputs", by_rows=True)

    def start(self, transformer: Transformer) -> int:
        return layer_index(transformer, self.layer)

    def relevance(self, found: Record) -> Tensor:
        return rolled_out(found, lambda row, layer: carried(row, found.attention(layer)), stream=0.5, branch=0.5)


def carried(
    row: Tensor,  # shape: (B, 1, N)
    attention: Rows,
) -> Tensor:  # the same
    """A row times the mean of the heads' attention."""
    read = ((row[:, None, :, rows].to(A) @ A).mean(1) for rows, A in attention.rows(*weighing(row)))
    return reduce(torch.add, read, torch.zeros_like(row))
