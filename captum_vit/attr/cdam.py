"""Class-discriminative attention maps."""

from __future__ import annotations

from typing import Any

from captum._utils.typing import TargetType
from captum.log import log_usage
from torch import Tensor
from torch.nn import functional as F

from captum_vit.attr.base import PRODUCTS, TokenAttribution, forward_args, warn_if_zero, widened
from captum_vit.errors import LayerError
from captum_vit.models.spec import spec_of
from captum_vit.tokens import TokenLayout
from captum_vit.trace.gradient import SiteGradient, gradient_at, layer_index, literal_module, reading_point
from captum_vit.trace.site import Site
from captum_vit.trace.state import checked_inputs, undisturbed


class LayerCDAM(TokenAttribution):
    r"""Signed evidence of each token for the target, read where a block begins to attend.

    .. math:: S_i = \sum_j T_{ij}\,\partial f_c / \partial T_{ij}

    ``T`` (B, N, D) are the tokens that enter the block's attention (after the pre-attention norm; in
    post-norm models the block's input) and ``f_c`` is the target's logit. For a CLS-pooled model and the
    last block a patch without attention has a score of exactly zero.

    Costs one forward pass, without a graph before the layer, and a backward pass from the output to it.
    It is the sum over channels of Captum's ``LayerGradientXActivation`` at that norm, and takes the
    arguments of ``LayerGradCam``.

    Departs from the paper's prose, which speaks of the tokens entering the last block. At the *input* of
    the last block of a CLS-pooled pre-norm model a patch reaches the logit through LayerNorm alone, which
    is free of scale, so gradient x input vanishes there; the authors' notebook reads the norm's output,
    as we do. (In mean-pooled models the block's input does carry a map.)

    Args:
        forward_func: the model, or a target module around it.
        layer: an int for a block's reading point, a Module or dotted name for exactly that module's
            output, None for the last block.
        device_ids: accepted as in Captum.
        output: see :class:`TokenAttribution`; ``"channels"`` leaves the product unreduced, as TCAV needs.

    Source: Brocki et al., Class-Discriminative Attention Maps for Vision Transformers, equation 2.
    """

    outputs = PRODUCTS

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
        with undisturbed(self.model):
            at = self._gradient(inputs, target, additional_forward_args, attribute_to_layer_input, grad_kwargs or {})
            product = at.tokens * at.grad
            if self.output == "channels":
                relevance = widened(product.detach())
                warn_if_zero(relevance, type(self).__name__)
                return (relevance,) if isinstance(inputs, tuple) else relevance
            layout = self._layout(at)
            relevance = product.sum(-1)
            return self._finish(F.relu(relevance) if relu_attributions else relevance, layout, inputs)

    def _gradient(
        self, inputs: Any, target: TargetType, args: Any, at_input: bool, grad_kwargs: dict[str, Any]
    ) -> SiteGradient:
        literal = self.layer is not None and not isinstance(self.layer, int)
        transformer = None if literal and self.output == "channels" else spec_of(self.model)
        site = self._site(at_input)
        return gradient_at(
            self.model,
            transformer,
            site,
            checked_inputs(inputs, self.model),
            forward_args(args),
            target,
            **grad_kwargs,
        )

    def _site(self, at_input: bool) -> Site:
        layer = -1 if self.layer is None else self.layer
        if isinstance(layer, int):
            return reading_point(spec_of(self.model), layer)
        return Site(literal_module(self.model, layer), "input" if at_input else "output")

    def _layout(self, at: SiteGradient) -> TokenLayout:
        """Where the tokens lie; refused if they are no tokens, or if no patch has a gradient."""
        if at.tokens.dim() != 3:
            raise LayerError(
                "A layer whose output is a sequence of tokens (B, N, D).",
                f"shape {tuple(at.tokens.shape)}",
                'a block or a norm, or output="channels".',
            )
        layout = at.watch.layout(at.tokens.shape[1])
        read = at.grad.ne(0).any(-1).any(0)  # shape: (N,)
        if read.any() and not read[max(layout.prefix, 1) :].any() and len(read) > 1:
            transformer = spec_of(self.model)
            last = layer_index(transformer, -1)
            raise LayerError(
                "A layer from which the patches still reach the output.",
                "one where only prefix tokens have a gradient: behind it the head reads them alone",
                f"layer=None, which reads where block {last} begins to attend, or an earlier block's output.",
            )
        return layout
