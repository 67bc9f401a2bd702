"""Class-discriminative attention maps."""

from __future__ import annotations

from typing import Any

from captum._utils.typing import TargetType
from captum.log import log_usage
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.attr.base import PRODUCTS, TokenAttribution
from captum_vit.errors import LayerError, OptionError
from captum_vit.options import boolean
from captum_vit.trace.modes.held import attention_held
from captum_vit.trace.modes.rules import checked_rule
from captum_vit.trace.run.layers import block_of
from captum_vit.trace.run.state import undisturbed


class LayerCDAM(TokenAttribution):
    r"""Signed evidence of each token for the target, read where a block begins to attend.

    .. math:: S_i = \sum_j T_{ij}\,\partial f_c / \partial T_{ij}

    ``T`` (B, N, D) are the tokens that enter the block's attention (after the pre-attention norm; in
    post-norm models the block's input) and ``f_c`` is the target's logit. For a CLS-pooled model and the
    last block a patch without attention has a score of exactly zero. Where a pre-norm block has no norm before its
    attention (Olmo 2, the first of ModernBERT), ``T`` are the tokens as its attention takes them, and what passes
    beside it does not count.

    Costs one forward pass, without a graph before the layer, and a backward pass from the output to it.
    In CLS-pooled models the last block runs only for the CLS row, where comparing outputs shows that nothing
    else is read (under the plain gradient): about one forward in all. It is the sum over channels of Captum's
    ``LayerGradientXActivation`` at that norm, and takes the arguments of ``LayerGradCam``.

    Departs from the paper's prose, which names the tokens entering the last block. At the *input* of
    the last block of a CLS-pooled pre-norm model a patch reaches the logit only through LayerNorm, which
    is free of scale, so gradient x input vanishes there; the authors' notebook reads the norm's output,
    as we do. (In mean-pooled models the block's input does carry a map.)

    Args:
        forward_func: the model, or a target module around it.
        layer: an int for a block's reading point, a Module or dotted name for exactly that module's
            output, None for the last block.
        device_ids: accepted as in Captum.
        rule: ``"grad"``, the paper's, the plain gradient; ``"frozen"`` with attention, norms and gates behind the
            layer held constant; ``"libra"``, LibraGrad's balanced gradients; ``"conservative"`` with only
            attention and norms held constant.
        output: see :class:`TokenAttribution`; ``"channels"`` leaves the product unreduced, as TCAV needs.

    Source: Brocki et al., Class-Discriminative Attention Maps for Vision Transformers, equation 2.
    """

    outputs = PRODUCTS
    reads_layer = True

    def __init__(
        self,
        forward_func: nn.Module,
        layer: nn.Module | str | int | None = None,
        device_ids: list[int] | None = None,
        *,
        rule: str = "grad",
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, layer, device_ids, output=output)
        self.rule = checked_rule(rule)

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: the gradient is multiplied by the tokens."""
        return True

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""Explain a batch; see :meth:`TokenAttribution.attribute`.

        Args:
            inputs: images (B, 3, H, W) or token ids (B, T).
            target: the output to explain.
            additional_forward_args: further positional arguments of the model.
            attribute_to_layer_input: read a literal layer's input instead of its output.
            relu_attributions: keep positive evidence only (after the sum over channels).
            grad_kwargs: further arguments of ``torch.autograd.grad``.

        Raises:
            LayerError: the layer is not part of the model, or no patch gets a gradient there.
        """
        boolean("relu_attributions", relu_attributions)
        given = (inputs, target, additional_forward_args, attribute_to_layer_input, grad_kwargs, self.rule)
        with undisturbed(self.model), self._reading(*given).ruled() as reading:
            relevance, layout = reading.gradient_x_tokens(target)
            if relu_attributions and self.output != "channels":
                relevance = F.relu(relevance)
            return self._finish(relevance, layout, inputs)

    def all_classes(
        self, inputs: Tensor | tuple[Tensor, ...], additional_forward_args: Any = None
    ) -> Tensor:  # shape: (B, C, h, w)
        r"""The maps of all classes; (B, N, C) with ``output="tokens"`` and for text.

        Each is what :meth:`attribute` gives for that class. With CLS pooling classes differ only in the
        Jacobian of the outputs by what the CLS row attends to, so all cost about 1.2 forwards (1,000 classes);
        otherwise one forward, and for each class a backward pass from the output to the layer.

        Raises:
            TargetError: the output is not one score for each class.
            OptionError: ``output="channels"``.
        """
        if self.output == "channels":
            raise OptionError("A map for every class.", 'output="channels"', "attribute, one class at a time.")
        given = (inputs, None, additional_forward_args)
        with undisturbed(self.model), self._reading(*given, rule=self.rule).ruled() as reading:
            scores, layout = reading.every_output()
            return self._finish_classes(scores, layout, inputs)

    def value_and_key_terms(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
    ) -> tuple[Tensor, Tensor]:
        r"""How much of each score comes through values, and how much through keys: two maps whose sum is CDAM.

        .. math::
            S_i = \sum_h A_i \Big\{ g \cdot T_i W_V + \frac{q \cdot T_i W_K}{\sqrt d}\; g \cdot (V_i - z) \Big\}

        for the patches of a CLS-pooled pre-norm model at the last block: ``A``, ``q`` and ``z`` are attention,
        query and context of the CLS row in head h, and :math:`g = \partial f_c / \partial z`. Every term holds
        :math:`A_i`, so a patch without attention scores exactly zero. The first term is what a patch holds, as
        far as the model attends to it; the second is what is gained or lost by attending to it rather than elsewhere.
        The paper's appendix keeps only the first; the second is not small.

        In every other model and block the same split is made by the same meaning: the first map is CDAM with
        the block's attention held constant (in post-norm models the residual stream counts with it), the second
        is what remains, queries included; under the other rules nothing does. Costs two forward passes and two
        backward passes to the layer.

        Raises:
            LayerError: the layer is a module or a name; only a block has values and keys.
            TraceError: the block's attention is not one that can be seen.
        """
        layer = -1 if self.layer is None else self.layer
        if not isinstance(layer, int):
            raise LayerError("The index of a block, which has values and keys.", f"the layer {layer!r}", "layer=None.")
        given = (inputs, target, additional_forward_args)
        with undisturbed(self.model), self._reading(*given, rule=self.rule).ruled() as reading:
            both, layout = reading.gradient_x_tokens(target)
            with attention_held(block_of(reading.call.transformer, layer)):
                values, _ = reading.gradient_x_tokens(target)
            return self._laid_out(values, layout), self._laid_out(both - values, layout)
