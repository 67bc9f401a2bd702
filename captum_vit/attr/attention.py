"""Attention itself, without a target."""

from __future__ import annotations

from torch import Tensor, nn

from captum_vit.attr.base import TokenAttribution, rolled_out
from captum_vit.models.spec import Transformer
from captum_vit.trace.gradient import layer_index
from captum_vit.trace.record import Record, Want


class RawAttention(TokenAttribution):
    r"""How much the head's row attends to each token in one block, averaged over heads.

    .. math:: S_j = E_h[A_{\mathrm{CLS}, j}]

    Not negative, a share of 1; it knows no target. Where there is no CLS token, the rows that the pooling
    reads, with its weights. Costs one forward pass; no gradient, but for a backward pass through the head
    alone that finds those rows.

    Args:
        forward_func: the model, or a target module around it.
        layer: index of the block; the last by default.
        output: see :class:`TokenAttribution`.
    """

    def __init__(self, forward_func: nn.Module, layer: int | None = None, *, output: str = "grid") -> None:
        super().__init__(forward_func, layer, output=output)

    def _want(self) -> Want:
        return Want(seen=["probs"], pool=True, first_row=True)

    def _relevance(self, found: Record) -> Tensor:
        layer = layer_index(found.transformer, -1 if self.layer is None else self.layer)
        return found.attended(layer).mean(1)

    def _layer_maps(self, found: Record) -> list[Tensor]:
        return [found.attended(layer).mean(1) for layer in found.layers]


class AttentionRollout(TokenAttribution):
    r"""Attention followed through all blocks, with the residual stream as an equal partner.

    .. math:: R = \prod_{l} \tfrac12 (E_h[A_l] + I)

    The map is the CLS row of the product (or the rows that the pooling reads). Not negative; it knows no
    target. Costs one forward pass. A row vector times matrices, from the last block to the first.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: the first block of the product.
        output: see :class:`TokenAttribution`.

    Source: Abnar and Zuidema, Quantifying Attention Flow in Transformers. Rows of each factor sum to 1.
    """

    def __init__(self, forward_func: nn.Module, start_layer: int = 0, *, output: str = "grid") -> None:
        super().__init__(forward_func, start_layer, output=output)

    def _want(self) -> Want:
        return Want(seen=["probs"], pool=True)

    def _start(self, transformer: Transformer) -> int:
        return layer_index(transformer, self.layer)

    def _relevance(self, found: Record) -> Tensor:
        return rolled_out(found, lambda row, layer: row @ found.seen["probs"][layer].mean(1), stream=0.5, branch=0.5)
