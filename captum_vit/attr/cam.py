"""Class activation maps on tokens: GradCAM and its kin, with tokens in the place of pixels of a feature map."""

from __future__ import annotations

from typing import Any

from captum._utils.typing import TargetType
from captum.log import log_usage
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.attr.base import PRODUCTS, TokenAttribution
from captum_vit.models.transformer import Transformer
from captum_vit.options import boolean
from captum_vit.tokens import TokenLayout
from captum_vit.trace.modes.rules import checked_rule
from captum_vit.trace.record.products import over_channels
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.run.layers import Layer
from captum_vit.trace.run.state import undisturbed, widened

TINY = 1e-7


class TokenCAM(TokenAttribution):
    """What the token CAMs share: the tokens x (B, N, D) of one layer and the target's gradient g there.

    A method writes ``_weights``, what the tokens are multiplied by before the sum over channels. PLUS over one of
    them sums its maps at the inputs of the blocks, whatever its layer is.

    Args:
        forward_func: the model, or a target module around it.
        layer: an int for a block's reading point (see :class:`LayerCDAM`), a Module or dotted name for exactly that
            module's output, None for the last block.
        device_ids: accepted as in Captum.
        rule: what the gradient is: ``"grad"`` the plain one; ``"frozen"`` with attention, norms and gates behind
            the layer held constant; ``"libra"``, LibraGrad's balanced gradients; ``"conservative"`` with
            only attention and norms held constant.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.
    """

    outputs = PRODUCTS
    reads_layer = True

    def __init__(
        self,
        forward_func: nn.Module,
        layer: Layer = None,
        device_ids: list[int] | None = None,
        *,
        rule: str = "grad",
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, layer, device_ids, output=output)
        self.rule = checked_rule(rule)

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: weights are multiplied by the tokens."""
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
        r"""Explain a batch, with the arguments of ``LayerGradCam``; see :meth:`TokenAttribution.attribute`.

        Args:
            inputs: images (B, 3, H, W) or token ids (B, T).
            target: the output to explain.
            additional_forward_args: further positional arguments of the model.
            attribute_to_layer_input: read a literal layer's input instead of its output.
            relu_attributions: keep positive evidence only (after the sum over channels), as the papers on
                convolutional networks do.
            grad_kwargs: further arguments of ``torch.autograd.grad``.

        Raises:
            LayerError: the layer is not part of the model, or no patch gets a gradient there.
        """
        boolean("relu_attributions", relu_attributions)
        boolean("attribute_to_layer_input", attribute_to_layer_input)
        given = (inputs, target, additional_forward_args, attribute_to_layer_input, grad_kwargs, self.rule)
        with undisturbed(self.model), self._reading(*given, channels=False).ruled() as reading:
            tokens, grad, layout = reading.tokens_and_gradient(target)
            assert layout is not None  # it is None only for unreduced products of any layer
            relevance = self._product(tokens, grad, layout)
            if relu_attributions and self.output != "channels":
                relevance = F.relu(over_channels(relevance, layout.standing))
            return self._finish(relevance, layout, inputs)

    def want(self, transformer: Transformer) -> Want:
        return Want(grads=["tokens"], rule=self.rule)

    def layer_maps(self, found: Record) -> list[Tensor]:
        tokens, grads = found.seen["tokens"], found.grads["tokens"]
        return [self._product(tokens[layer], grads[layer], found.layout_of(layer)) for layer in found.layers]

    def _product(self, x: Tensor, g: Tensor, layout: TokenLayout) -> Tensor:  # shape: (B, N, D)
        x, g = widened(x), widened(g)
        return self._weights(x, g, layout) * x

    def _weights(self, x: Tensor, g: Tensor, layout: TokenLayout) -> Tensor:  # shape: (B, N, D) or (B, 1, D)
        raise NotImplementedError


class TokenHiResCAM(TokenCAM):
    r"""Every token times its own gradient.

    .. math:: S_i = \sum_d g_{id}\,x_{id}

    This is gradient x input at the layer, and with the default layer it is :class:`LayerCDAM`, reached by the
    general route. Signed. Costs one forward pass, without a graph before the layer, and a backward pass to it.

    The pytorch-grad-cam package drops CLS, then rectifies the map and rescales it to [0, 1].

    Args:
        forward_func: see :class:`TokenCAM`.
        rule: see :class:`TokenCAM`.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Source: Draelos and Carin, Use HiResCAM instead of Grad-CAM.
    """

    def _weights(self, x: Tensor, g: Tensor, layout: TokenLayout) -> Tensor:
        return g


class TokenGradCAMElementWise(TokenCAM):
    r"""The positive part of every product of token and gradient.

    .. math:: S_i = \sum_d (g_{id}\,x_{id})^+

    Not negative. Costs one forward pass, without a graph before the layer, and a backward pass to it.

    The pytorch-grad-cam package drops CLS and rescales the map to [0, 1].

    Args:
        forward_func: see :class:`TokenCAM`.
        rule: see :class:`TokenCAM`.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Source: Hirschberg et al., there for convolutions; ``GradCAMElementWise`` of pytorch-grad-cam.
    """

    def _weights(self, x: Tensor, g: Tensor, layout: TokenLayout) -> Tensor:
        return g * (g * x > 0)


class TokenLayerCAM(TokenCAM):
    r"""Every token times the positive part of its own gradient.

    .. math:: S_i = \sum_d g_{id}^+\,x_{id}

    Signed, since tokens are (the activations of the source are not negative, and there it is what
    :class:`TokenGradCAMElementWise` is). Costs one forward pass, without a graph before the layer, and a backward
    pass to it.

    The source adds up several layers, each rescaled to [0, 1] first, and rectified; the pytorch-grad-cam package
    does the same and drops CLS. Here PLUS sums layers as they are.

    Args:
        forward_func: see :class:`TokenCAM`.
        rule: see :class:`TokenCAM`.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Source: Jiang et al., LayerCAM.
    """

    def _weights(self, x: Tensor, g: Tensor, layout: TokenLayout) -> Tensor:
        return F.relu(g)


class ChannelCAM(TokenCAM):
    """What CAMs with one weight for each channel share: the tokens over which the weights are taken.

    A token on which the score does not depend, such as a word behind the one that is explained, has a map of zero.

    Args:
        forward_func: see :class:`TokenCAM`.
        include_prefix: CLS and registers count among those tokens; False leaves them to the patches. Padding
            never counts. Either way prefix tokens get a score, which ``output="tokens"`` shows.
        rule: see :class:`TokenCAM`.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        layer: Layer = None,
        device_ids: list[int] | None = None,
        *,
        include_prefix: bool = True,
        rule: str = "grad",
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, layer, device_ids, rule=rule, output=output)
        self.include_prefix = boolean("include_prefix", include_prefix)

    def _weights(self, x: Tensor, g: Tensor, layout: TokenLayout) -> Tensor:  # shape: (B, N, D)
        counted = layout.counted(x, self.include_prefix).unsqueeze(-1)  # shape: (B, N, 1)
        return self._channel_weights(x, g, counted) * g.any(-1, keepdim=True)

    def _channel_weights(self, x: Tensor, g: Tensor, counted: Tensor) -> Tensor:  # shape: (B, 1, D)
        raise NotImplementedError


class TokenGradCAM(ChannelCAM):
    r"""Tokens seen through one weight for each channel: the mean gradient there.

    .. math:: S_i = \sum_d w_d\,x_{id}, \qquad w_d = \frac1N \sum_i g_{id}

    Signed. Costs one forward pass, without a graph before the layer, and a backward pass to it.

    The means run over all tokens, CLS included, as in the SkipPLUS authors' code; the pytorch-grad-cam package
    drops CLS (``include_prefix=False`` here), rectifies the map (``relu_attributions=True``) and rescales it to
    [0, 1]. Captum's ``LayerGradCam`` takes the tokens' dimension for channels, and sums over the wrong one.

    Args:
        forward_func: see :class:`TokenCAM`.
        include_prefix: CLS and registers count in the means; padding never does.
        rule: see :class:`TokenCAM`.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Source: Selvaraju et al., Grad-CAM.
    """

    def _channel_weights(self, x: Tensor, g: Tensor, counted: Tensor) -> Tensor:
        return (counted * g).sum(1, keepdim=True) / counted.sum(1, keepdim=True)


class ActivationCAM(ChannelCAM):
    """What XGradCAM and GradCAM++ share: sums of activations over tokens, of their sizes or as they are.

    Args:
        forward_func: see :class:`TokenCAM`.
        absolute: add up the sizes of activations; False adds them up as they are, signs and all.
        include_prefix: see :class:`ChannelCAM`.
        rule: see :class:`TokenCAM`.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        layer: Layer = None,
        device_ids: list[int] | None = None,
        *,
        absolute: bool = True,
        include_prefix: bool = True,
        rule: str = "grad",
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, layer, device_ids, include_prefix=include_prefix, rule=rule, output=output)
        self.absolute = boolean("absolute", absolute)

    def _activations(self, x: Tensor, counted: Tensor) -> Tensor:  # shape: (B, N, D)
        return counted * (x.abs() if self.absolute else x)


class TokenXGradCAM(ActivationCAM):
    r"""Tokens seen through one weight for each channel: the mean gradient, tokens counting by their activation.

    .. math:: S_i = \sum_d w_d\,x_{id}, \qquad w_d = \frac{\sum_i |x_{id}|\,g_{id}}{\sum_i |x_{id}|}

    Signed. Costs one forward pass, without a graph before the layer, and a backward pass to it.

    In the source activations are not negative, and the sizes are the activations themselves. Tokens have both
    signs. With ``absolute=False`` they are summed as they are, the XGradCAM of the pytorch-grad-cam package and of
    the SkipPLUS paper; a channel whose sum comes near zero then outweighs all others, and in half precision the map
    is mostly rounding. The default is the paper's XGradCAM+. The package also drops CLS (``include_prefix=False``),
    rectifies the map (``relu_attributions=True``) and rescales it to [0, 1].

    Args:
        forward_func: see :class:`TokenCAM`.
        absolute: tokens count by the size of their activation; False: by the activation, signs and all.
        include_prefix: CLS and registers count in the sums; padding never does.
        rule: see :class:`TokenCAM`.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Source: Fu et al., Axiom-based Grad-CAM; the SkipPLUS paper, appendix E.
    """

    def _channel_weights(self, x: Tensor, g: Tensor, counted: Tensor) -> Tensor:
        a = self._activations(x, counted)
        return (a * g).sum(1, keepdim=True) / (a.sum(1, keepdim=True) + TINY)


class TokenGradCAMPlusPlus(ActivationCAM):
    r"""Tokens seen through one weight for each channel: positive gradients, weighed by how the score curves.

    .. math:: S_i = \sum_d w_d\,x_{id}, \qquad w_d = \sum_i \alpha_{id}\,g_{id}^+, \qquad
        \alpha_{id} = \frac{g_{id}^2}{2 g_{id}^2 + g_{id}^3 \sum_k |x_{kd}|}
            = \frac{1}{2 + g_{id} \sum_k |x_{kd}|}

    Signed. Costs one forward pass, without a graph before the layer, and a backward pass to it. As in the source the
    second and third derivatives are those of the exponential of the score, whose value is left out as a factor.

    In the source activations are not negative, so alpha lies between 0 and 1/2. Tokens have both signs; with
    ``absolute=False`` they are summed as they are, as the pytorch-grad-cam package does, and alpha has a pole where
    the sum times the gradient is -2, beside which the map is mostly rounding. That package also adds 1e-6 to the
    denominator, which for gradients below 1e-3 *is* the denominator; it drops CLS (``include_prefix=False``),
    rectifies the map (``relu_attributions=True``) and rescales it to [0, 1].

    Args:
        forward_func: see :class:`TokenCAM`.
        absolute: the sum in alpha is of the sizes of activations; False: of activations, signs and all.
        include_prefix: CLS and registers count in the sums; padding never does.
        rule: see :class:`TokenCAM`.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Source: Chattopadhay et al., Grad-CAM++, equations 13 and 19.
    """

    def _channel_weights(self, x: Tensor, g: Tensor, counted: Tensor) -> Tensor:
        positive = F.relu(g)
        alpha = 1 / (2 + positive * self._activations(x, counted).sum(1, keepdim=True))
        return (counted * alpha * positive).sum(1, keepdim=True)
