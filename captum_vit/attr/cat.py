"""Gradient x input, summed over blocks."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from captum_vit.attr.base import InputProducts
from captum_vit.models.transformer import Transformer
from captum_vit.trace.modes.rules import checked_rule
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.record.rollout import gradient_x_input
from captum_vit.trace.record.summed import summed


class CAT(InputProducts):
    r"""Gradient x input at the input of every block, summed: PLUS over InputXGradient.

    .. math:: S_i = \sum_l \sum_d x^l_{id}\,\partial f_c / \partial x^l_{id}

    Signed. Costs one forward and one backward pass. In a CLS-pooled pre-norm model the last block's term
    is zero for patches, since a patch reaches the logit there through a LayerNorm that is free of scale.

    Where blocks have tokens on several grids, each map is laid on the grid of the first block: the relevance of a cell
    is divided evenly over those that it covers.

    Departs from the AttCAT paper, which writes the tokens that leave each block. We take those that enter it, as the
    SkipPLUS paper and the code of the AttCAT authors do, so that PLUS over InputXGradient is exactly this method. The
    rules are an addition.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: the first block of the sum.
        rule: what the gradient is: ``"grad"`` the plain one; ``"frozen"`` with attention, norms and gates held
            constant, which is PLUS over DecompX; ``"libra"`` LibraGrad's, which differs from it in gated units;
            ``"conservative"`` with only attention and norms held constant, PLUS over ConservativeLRP.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Source: Qiang et al., AttCAT; the CAT of its ablation.
    """

    def __init__(
        self, forward_func: nn.Module, start_layer: int = 0, *, rule: str = "grad", output: str = "grid"
    ) -> None:
        super().__init__(forward_func, start_layer, output=output)
        self.rule = checked_rule(rule)

    def want(self, transformer: Transformer) -> Want:
        return replace(super().want(transformer), every_layout=True)

    def relevance(self, found: Record) -> Tensor:
        return summed(found, gradient_x_input(found), found.layers)
