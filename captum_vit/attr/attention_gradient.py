"""Attention weighted by its gradient."""

from __future__ import annotations

from torch import Tensor

from captum_vit.attr.base import TokenAttribution, carried_back, maps_of_layers, rolled_out
from captum_vit.trace.record import Record, Want


class GenAtt(TokenAttribution):
    r"""Positive evidence carried from layer to layer by attention and its gradient.

    .. math:: R \leftarrow R + \bar A_l R, \qquad \bar A_l = E_h[(\nabla A_l \odot A_l)^+], \qquad R = I

    The map is the CLS row of the final R without its own share; where there is no CLS token, the rows
    that the pooling reads, with its weights. The gradient is that of the target's logit.

    Costs one forward and one backward pass. The row is carried from the last layer to the first, a vector
    times matrices: no product of two N x N matrices is formed.

    Source: Chefer et al., Generic Attention-model Explainability (self-attention rules), called Relevance
    Propagation in the CDAM paper and GenAtt in the SkipPLUS paper.
    """

    def _want(self) -> Want:
        return Want(seen=["probs"], grads=["probs"], pool=True)

    def _relevance(self, found: Record) -> Tensor:
        return rolled_out(found, lambda row, layer: carried_back(row, found, layer))

    def _layer_maps(self, found: Record) -> list[Tensor]:
        """For each layer its own map alone, as it is summed by PLUS (this is GradSAM)."""
        return maps_of_layers(found, lambda row, layer: carried_back(row, found, layer))
