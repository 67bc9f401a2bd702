"""Decomposed token vectors, carried to the output in one backward pass."""

from __future__ import annotations

from torch import Tensor, nn

from captum_vit.attr.base import PRODUCTS, TokenAttribution
from captum_vit.models.spec import Transformer
from captum_vit.trace.gradient import layer_index
from captum_vit.trace.record import Record, Want
from captum_vit.trace.rows import gradient_x_input


class DecompX(TokenAttribution):
    r"""How much of the target's logit comes from each token, by decomposing every vector on the way.

    Every token at the input of block ``start_layer`` is followed as its own part of every later vector:
    attention probabilities, norm deviations and activation slopes are constants (zero-origin rule),
    biases belong to nobody. The relevance of a token is its part of the logit. Signed, in logits.

    .. math:: R_j = \sum_d x_{jd}\,\partial f_c^{\mathrm{frozen}} / \partial x_{jd}

    Bias-free decomposition of N x N x D vectors equals gradient x input under the frozen rule, so it costs
    one forward and one backward pass and the memory of one; the explicit propagation is the slow twin in
    the tests. Relevances sum to the logit less what the biases contribute.

    Departs from the source in the biases, which it shares out among tokens by absolute dot products; SkipPLUS
    evaluates this bias-free form. Gated units hold their gate constant (the source has none). There is no
    option for the biases: how one is shared (absdot, abssim, norm, equal, dot) depends on the vectors of all N x N
    pairs of tokens in every layer, which one backward pass never forms; the tests hold the explicit form. All
    biases on CLS, the one choice that needs no such vectors, leaves every other token's relevance as it is here.
    ``FullGrad(rule="frozen")`` is complete in one pass: each bias belongs to the token to which it is added.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: the block whose input tokens are explained.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Source: Modarressi et al., DecompX; the vision form is that of the SkipPLUS paper.
    """

    outputs = PRODUCTS

    def __init__(self, forward_func: nn.Module, start_layer: int = 0, *, output: str = "grid") -> None:
        super().__init__(forward_func, start_layer, output=output)

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: the frozen gradient is multiplied by the tokens."""
        return True

    def _want(self) -> Want:
        return Want(grads=["tokens"], rule="frozen")

    def _start(self, transformer: Transformer) -> int:
        return layer_index(transformer, self.layer)

    def _relevance(self, found: Record) -> Tensor:
        return gradient_x_input(found)[0]

    def _layer_maps(self, found: Record) -> list[Tensor]:
        return gradient_x_input(found)
