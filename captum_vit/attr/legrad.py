"""The gradient of every block's own readout with respect to its attention."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.attr.base import TokenAttribution
from captum_vit.models.transformer import Transformer
from captum_vit.options import one_of
from captum_vit.trace.record.evidence import maps_of_row, of_attention
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.replay.readouts import READOUTS
from captum_vit.trace.run.layers import chosen_layers, listed


class LeGrad(TokenAttribution):
    r"""What each block's attention could add to the score, if the head read the tokens behind that very block.

    .. math::
        S_j = \sum_l \frac{1}{H N} \sum_{h, i} \Big(\frac{\partial s_l}{\partial A^{lh}_{ij}}\Big)^+, \qquad
        s_l = f_c(x^{l + 1})

    f is the head (the final norm and all behind it), :math:`x^{l + 1}` the tokens that leave block l. Each gradient is
    that of the block's own readout, through no other block: attention of earlier blocks has no part in it. Attention
    itself does not count, only how the readout rises with it. What a mask hides cannot be attended to, and is zero.
    Not negative. The mean runs over all rows i but padding; of a head that reads the CLS row, no other row has a
    gradient with ``readout="head"``. So it is the same formula for heads of all kinds.

    Costs one forward pass, a backward pass that ends at the attention of each block, and the embedding and the head
    once for each block: about two forward passes.

    The authors' code for CLIP lets the head read the mean of all tokens in the place of CLS (``readout="mean"``), and
    by default sums only the last two blocks (``layers=[-2, -1]``); for attention pooling it takes the gradient at the
    attention that the pooling pays, where this class stays with that of the blocks. Both drop CLS and rescale the map
    to [0, 1], which is left to who draws it, and divide by the number of blocks, where maps are summed here.

    Args:
        forward_func: the model, or a target module around it.
        readout: what the head is given: ``"head"``, the tokens that leave the block, of which it reads those that it
            always reads; ``"mean"``, the mean of these tokens in the place of each.
        layers: indices of the blocks that take part; None means all.
        output: see :class:`TokenAttribution`.

    Raises:
        OptionError: an unknown readout; no layer.
        UnsupportedModelError: the head reads more than what leaves the last block.

    Source: Bousselham et al., LeGrad: An Explainability Method for Vision Transformers via Feature Formation
    Sensitivity.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        *,
        readout: str = "head",
        layers: Iterable[int] | None = None,
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, output=output)
        self.readout = one_of("readout", readout, READOUTS)
        self.layers = listed("layers", layers)

    def want(self, transformer: Transformer) -> Want:
        return Want(seen=["out", "probs"], grads=["probs"], by_rows=True, readout=self.readout)

    def start(self, transformer: Transformer) -> int:
        return chosen_layers(transformer, self.layers)[0]

    def relevance(self, found: Record) -> Tensor:
        maps = dict(zip(found.layers, self.layer_maps(found), strict=True))
        return reduce(torch.add, (maps[layer] for layer in chosen_layers(found.transformer, self.layers)))

    def layer_maps(self, found: Record) -> list[Tensor]:
        """For each layer its own map by itself; PLUS over them is the map."""
        return maps_of_row(found, [of_attention(layer, _rise) for layer in found.layers], _mean_row(found))


def _rise(A: Tensor, G: Tensor) -> Tensor:
    """The positive gradient, where attention may be paid."""
    return F.relu(G) * A.ne(0)


def _mean_row(found: Record) -> Tensor:  # shape: (B, 1, N)
    return found.layout.mean_row(found.seen["out"][found.layers[-1]])
