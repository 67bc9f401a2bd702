"""Gradient x input together with what every bias adds."""

from __future__ import annotations

from torch import Tensor, nn

from captum_vit.attr.base import TokenAttribution
from captum_vit.models.transformer import Transformer
from captum_vit.trace.modes.rules import checked_rule
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.record.rollout import gradient_x_input
from captum_vit.trace.record.summed import summed
from captum_vit.trace.run.layers import layer_index


class FullGrad(TokenAttribution):
    r"""Gradient x input at one block, and bias x gradient of every bias from there on.

    .. math::
        S_i = \sum_d x^m_{id}\,\partial f_c / \partial x^m_{id}
            + \sum_{l \ge m} \sum_{b \in B_l} \sum_d b_d\,\partial f_c / \partial b_{id}

    ``x^m`` are the tokens that enter block m, and :math:`b_{id}` stands for the bias where it is added to token i.
    :math:`B_l` are all biases of a block: of norms, of linear layers (queries, keys and values too) and of
    convolutions; those after the blocks count with the last one. A bias that is added behind the pooling is
    credited to the rows that the target's output reads, by the lengths of its gradient there (to CLS, where that is
    the one).

    Where attention cannot be followed, cells are followed through windows, heads and pooled keys: a bias that is added
    to a cell belongs to it, one that is added to an average of cells to those around it, and what coarser blocks add
    is divided evenly over the cells of the start block that theirs cover.

    Signed, in logits. Under the rules ``"frozen"`` and ``"libra"`` the map is complete: over all tokens,
    prefix included, it sums to the logit. Under the plain gradient it is not, since attention, norms and
    activations are no piecewise linear functions. Under those two rules each call compares the sum with the logit,
    and refuses a model in which they differ by more than rounding.

    Costs one forward and one backward pass; bias x gradient is summed over channels while the gradient
    passes, so no more memory is needed than for gradient x input. Which biases there are is found by watching
    the calls of the pass; position biases inside a softmax are no biases of this kind.

    Departs from the original in its post-processing (absolute values, normalised and enlarged), which is left
    out, as the SkipPLUS paper does. The rules are an addition.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: m, the block whose input tokens are explained.
        rule: ``"grad"``, the papers' choice, the plain gradient; ``"frozen"`` with attention, norms and gates
            held constant, as in DecompX; ``"libra"``, LibraGrad's balanced gradients; ``"conservative"`` with only
            attention and norms held constant, under which the map is not complete.
        output: see :class:`TokenAttribution`.

    Raises:
        OptionError: there is no such rule.
        TraceError: a bias is added to a tensor whose rows are not those of the batch.
        UnsupportedModelError: the rule does not cover all that the model does, so the map would not be complete; or the
            places of a later block's cells, in a network of several grids, were not found.

    Source: Srinivas and Fleuret, Full-Gradient Representation for Neural Network Visualization.
    """

    reads_layer = True

    def __init__(
        self, forward_func: nn.Module, start_layer: int = 0, *, rule: str = "grad", output: str = "grid"
    ) -> None:
        super().__init__(forward_func, start_layer, output=output)
        self.rule = checked_rule(rule)

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: the gradient is multiplied by the tokens, and by the biases."""
        return True

    def want(self, transformer: Transformer) -> Want:
        return Want(grads=["tokens"], rule=self.rule, row="target", biases=True)

    def start(self, transformer: Transformer) -> int:
        return layer_index(transformer, self.layer)

    def relevance(self, found: Record) -> Tensor:
        return self.layer_maps(found)[0]

    def layer_maps(self, found: Record) -> list[Tensor]:
        """For each start layer its own gradient x input and all biases from there on."""
        parts = zip(gradient_x_input(found), found.biases_behind(), strict=True)
        return [product.sum(-1) + biases for product, biases in parts]


class FullGradPlus(FullGrad):
    r"""Gradient x input at every block, summed, and bias x gradient of every bias, once.

    .. math::
        S_i = \sum_{l \ge m} \sum_d x^l_{id}\,\partial f_c / \partial x^l_{id}
            + \sum_{l \ge m} \sum_{b \in B_l} \sum_d b_d\,\partial f_c / \partial b_{id}

    ``FullGradPlus(model)`` is the paper's FullGrad+ with PLUS, and ``FullGradPlus(model, m)``, like
    ``SkipPLUS(FullGradPlus(model), m)``, that with SkipPLUS. ``PLUS(FullGrad(model))`` would count the biases of
    block l l + 1 times. Without biases it is :class:`CAT`. What a bias is and where it is credited:
    see :class:`FullGrad`. Signed, in logits.

    Under the rules ``"frozen"`` and ``"libra"`` every term of the first sum, with the biases behind it, is
    complete: gradient x input at block l and all biases from l on sum to the logit over all tokens.

    Costs one forward and one backward pass for all start layers together, and the memory of gradient x input.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: m, the first block of both sums.
        rule: ``"grad"``, the paper's choice; ``"frozen"`` or ``"libra"``: see :class:`FullGrad`.
        output: see :class:`TokenAttribution`.

    Source: the SkipPLUS paper, equations 5 and 6.
    """

    def relevance(self, found: Record) -> Tensor:
        return summed(found, self.layer_maps(found), found.layers)

    def layer_maps(self, found: Record) -> list[Tensor]:
        """For each layer its own gradient x input and its own biases."""
        products = zip(found.layers, gradient_x_input(found), strict=True)
        return [product.sum(-1) + found.biases_of(layer) for layer, product in products]
