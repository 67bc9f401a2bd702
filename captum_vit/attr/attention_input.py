"""Gradient x input, weighted by the attention that each token receives."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn

from captum_vit.attr.base import PRODUCTS, TokenAttribution
from captum_vit.models.transformer import Transformer
from captum_vit.options import one_of
from captum_vit.trace.modes.by_rows import Rows
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.replay.reading import refuse_unread
from captum_vit.trace.run.layers import Layer, block_index, layer_index

ALIGNMENTS = {"output": "out", "input": "tokens"}


class AttIxG(TokenAttribution):
    r"""Gradient x input of one block's tokens, times the attention that they receive there.

    .. math:: S_j = \mathrm{AttnFrom}_j \sum_d x_{jd}\,\partial f_c / \partial x_{jd}, \qquad
        \mathrm{AttnFrom}_j = \frac{1}{H N} \sum_{h,i} A^h_{ij}

    ``A`` is the block's attention, all rows alike (padding excluded, prefix included), and ``x`` are the tokens that
    leave the block. Signed. Costs one forward pass, without a graph before the block, and a backward pass to it.

    Sources differ on which tokens go with the attention of a block. The AttCAT paper and the code of the SkipPLUS and
    LibraGrad authors take the tokens that leave the block: ``alignment="output"``, the default. The text of the
    SkipPLUS paper and the code of the AttCAT authors take those that enter it: ``alignment="input"``.
    At the output of the last block of a CLS-pooled model patches have no gradient: that is refused here, and
    adds nothing in :class:`AttCAT`.

    Args:
        forward_func: the model, or a target module around it.
        layer: the block: its index, itself, its name, or a module inside it; the first by default, since the
            tokens are explained where the network begins, as in PLUS.
        alignment: ``"output"`` pairs attention with the tokens that leave the block, ``"input"`` with those that
            enter it.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Raises:
        LayerError: no patch has a gradient there.

    Source: the SkipPLUS paper, appendix E.
    """

    outputs = PRODUCTS
    reads_layer = True

    def __init__(
        self, forward_func: nn.Module, layer: Layer = 0, *, alignment: str = "output", output: str = "grid"
    ) -> None:
        super().__init__(forward_func, layer, output=output)
        self.alignment = one_of("alignment", alignment, tuple(ALIGNMENTS))

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: the gradient is multiplied by the tokens."""
        return True

    def want(self, transformer: Transformer) -> Want:
        return Want(seen=["probs"], grads=[ALIGNMENTS[self.alignment]], by_rows=True)

    def start(self, transformer: Transformer) -> int:
        return block_index(self.model, transformer, self.layer)

    def relevance(self, found: Record) -> Tensor:
        first = self.layer_maps(found)[0]
        kind = ALIGNMENTS[self.alignment]
        refuse_unread(found.layout, found.grads[kind][found.start], 'an earlier block, or alignment="input".')
        return first

    def layer_maps(self, found: Record) -> list[Tensor]:
        """For each block its tokens times their gradient times the attention from them."""
        kind, received = ALIGNMENTS[self.alignment], attention_from(found)
        return [
            received[layer].unsqueeze(-1) * found.seen[kind][layer] * found.grads[kind][layer] for layer in found.layers
        ]


class AttCAT(AttIxG):
    r"""Attentive class activation tokens: :class:`AttIxG` of every block, summed.

    .. math:: S_j = \sum_l \mathrm{AttnFrom}^l_j \sum_d x^l_{jd}\,\partial f_c / \partial x^l_{jd}

    It is PLUS over AttIxG of the same alignment. Signed. Costs one forward and one backward pass, and their
    memory: rows of attention are formed some at a time in the backward pass.

    The AttCAT paper writes the tokens that leave each block, and so do we. The code of its authors takes those that
    enter it: ``alignment="input"`` gives its maps to rounding. The code of the SkipPLUS authors takes block outputs
    too, and leaves the last block out, where patches have no gradient if the head reads only CLS. We keep it: it
    counts in mean-pooled models.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: the first block of the sum.
        alignment: see :class:`AttIxG`.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Source: Qiang et al., AttCAT: Explaining Transformers via Attentive Class Activation Tokens.
    """

    def __init__(
        self, forward_func: nn.Module, start_layer: int = 0, *, alignment: str = "output", output: str = "grid"
    ) -> None:
        super().__init__(forward_func, start_layer, alignment=alignment, output=output)

    def start(self, transformer: Transformer) -> int:
        return layer_index(transformer, self.layer)

    def relevance(self, found: Record) -> Tensor:
        return reduce(torch.add, self.layer_maps(found))


def attention_from(found: Record) -> dict[int, Tensor]:  # shape of each: (B, N)
    """How much attention each token receives in each block: the mean over heads and over all rows but padding."""
    counted = found.layout.counted(found.output).unsqueeze(1)  # shape: (B, 1, N)
    received: dict[int, Tensor] = {}

    def look(layer: int, attention: Rows) -> None:
        total = reduce(torch.add, (counted[..., rows].to(A) @ A.mean(1) for rows, A in attention.rows()))
        received[layer] = (total / counted.sum(2, keepdim=True)).squeeze(1)

    found.backward(look)
    return received
