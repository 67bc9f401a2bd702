"""Layer-wise relevance propagation, and what the papers make of it.

The authors of the LXT package, which holds AttnLRP, state a patent claim on LRP. AttnLRP is left out here; these
methods are offered so that others can be compared with them. See docs/relevance-propagation.md.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from captum._utils.typing import TargetType
from captum.log import log_usage
from torch import Tensor, nn

from captum_vit.attr.base import PRODUCTS, EntranceProducts, TokenAttribution, warn_if_zero
from captum_vit.errors import OptionError
from captum_vit.models.transformer import Transformer
from captum_vit.options import one_of
from captum_vit.trace.record.evidence import Update, followed, maps_of_updates, of_matrix
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.record.rollout import maps_of_layers
from captum_vit.trace.replay.pixels import relevance_of_pixels
from captum_vit.trace.run.describe import described
from captum_vit.trace.run.layers import Layer, block_index, layer_index
from captum_vit.trace.run.state import undisturbed


class LRP(TokenAttribution):
    r"""The relevance of each token, handed back from the score through every layer.

    .. math:: S_i = \sum_d R^l_{id}, \qquad
        R_x = x \odot \left(\frac{\partial z}{\partial x}\right)^\top \frac{R}{z}

    The score has a relevance of 1. Every operation hands what its result got to its inputs, by their part in a sum
    z: only of the positive products in linear layers and convolutions (alpha = 1, beta = 0); of all where two
    streams are multiplied (half to each) or added. Norms, softmax, activations and multiples by a constant let it
    pass, and biases get nothing. So over all tokens, prefix included, the map sums to 1, less what reaches a z of
    zero. Signed; no unit. :meth:`pixels` carries it on to the pixels.

    Costs one forward pass and a backward pass that repeats it twice, all in float64: about 15 times the plain forward
    pass of a float32 model on a CPU.

    Where sums of mixed sign come near zero, R / z is large. That is how the source defines it, and the map takes
    small changes of weights for large ones: rounded to bfloat16 a model of random weights has another map. Hence
    float64, and the refusal of models in half precision. :class:`TransAttr` suffers least.

    Departs from the source, which scales the shares of a sum over the whole batch (here sample by sample, so every
    image of a batch has its own map). Gated units, rotary positions, scaled branches, mean and attention pooling have
    no rule in the source. Theirs follow from those above: a product of two streams is shared in halves, a sum by its
    parts, and constants get nothing.

    The evaluation scripts of Chefer et al. compute the rows "LRP" and "partial LRP" of their tables with another
    implementation (``ViT_orig_LRP``, the rules of ``layers_lrp.py``). Its maps are not these: see
    docs/relevance-propagation.md.

    Others state a patent claim on LRP: see docs/relevance-propagation.md.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: the block whose input tokens are explained; the first by default.
        explains: ``"tokens"``; or ``"pixels"``: ``attribute`` then gives the map of :meth:`pixels`, (B, 1, H, W), which
            takes neither a start layer nor another output.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Raises:
        OptionError: pixels together with what only tokens have.
        ModelStateError: the model is of half precision.
        UnsupportedModelError: relevance arrives at an operation for which it is not defined.

    Source: Bach et al., On Pixel-wise Explanations; the rules for transformers are those of Chefer et al.,
    Transformer Interpretability Beyond Attention Visualization, whose baseline this is.
    """

    outputs = PRODUCTS
    reads_layer = True

    def __init__(
        self, forward_func: nn.Module, start_layer: int = 0, *, explains: str = "tokens", output: str = "grid"
    ) -> None:
        super().__init__(forward_func, start_layer, output=output)
        self.explains = one_of("explains", explains, ("tokens", "pixels"))
        if explains == "pixels" and (start_layer != 0 or output != "grid"):
            got = f"start_layer={start_layer!r}, output={output!r}"
            raise OptionError("Pixels, as they are, from the first block.", got, 'LRP(model, explains="pixels").')

    @log_usage()
    def attribute(
        self, inputs: Tensor | tuple[Tensor, ...], target: TargetType = None, additional_forward_args: Any = None
    ) -> Tensor | tuple[Tensor, ...]:
        r"""Explain a batch, as in :class:`TokenAttribution`; its pixels, if these are explained."""
        if self.explains == "pixels":
            return self.pixels(inputs, target, additional_forward_args)
        with undisturbed(self.model):  # not by super: warnings name the caller
            found = self._record(inputs, target, additional_forward_args)
            return self._finish(self.relevance(found), found.layout, inputs)

    def want(self, transformer: Transformer) -> Want:
        if self.explains == "pixels":
            raise OptionError("Maps of tokens, to be summed.", 'LRP with explains="pixels"', 'explains="tokens".')
        return Want(grads=["tokens"], relevance=True)

    def start(self, transformer: Transformer) -> int:
        return layer_index(transformer, self.layer)

    def relevance(self, found: Record) -> Tensor:
        return found.grads["tokens"][found.start]

    def layer_maps(self, found: Record) -> list[Tensor]:
        return [found.grads["tokens"][layer] for layer in found.layers]

    @log_usage()
    def pixels(
        self, inputs: Tensor | tuple[Tensor, ...], target: TargetType = None, additional_forward_args: Any = None
    ) -> Tensor | tuple[Tensor, ...]:  # shape: (B, 1, H, W)
        """The relevance of every pixel, summed over colours: the map that papers compare with as LRP.

        From the first block's input it goes on through the embedding. Position tables take their share of the sum
        with the patches, the CLS token and registers keep theirs, and what is left is shared by the pixels of each
        patch under the rule for inputs with a least and a largest value.
        """
        with undisturbed(self.model):
            relevance = relevance_of_pixels(described(self._call(inputs, target, additional_forward_args)), target)
            warn_if_zero(relevance, type(self).__name__)
        relevance = relevance.sum(1, keepdim=True)
        return (relevance,) if isinstance(inputs, tuple) else relevance


class PartialLRP(TokenAttribution):
    r"""How relevant one block's attention to each token is.

    .. math:: S_j = E_h[(R^{A}_{\mathrm{CLS}, j})^+]

    ``R`` is the relevance that reaches the attention probabilities of a block, as in :class:`LRP`. Not negative.
    Where the head reads several rows, the mean of those that the target's output reads.

    Costs one forward pass, in float64, and a backward pass through the blocks from that one on: about 3 times the plain
    forward pass of a float32 model on a CPU. Half precision is refused, and the rest of what holds for :class:`LRP`
    holds too, the implementation behind the printed tables included.

    Others state a patent claim on LRP: see docs/relevance-propagation.md.

    Args:
        forward_func: the model, or a target module around it.
        layer: the block: its index, itself, its name, or a module inside it; the last by default, as in the source.
        output: see :class:`TokenAttribution`.

    Source: Voita et al., Analyzing Multi-Head Self-Attention, in the form that Chefer et al. compare with.
    """

    reads_layer = True

    def __init__(self, forward_func: nn.Module, layer: Layer = None, *, output: str = "grid") -> None:
        super().__init__(forward_func, layer, output=output)

    def want(self, transformer: Transformer) -> Want:
        return Want(grads=["probs"], row="target", relevance=True)

    def start(self, transformer: Transformer) -> int:
        return block_index(self.model, transformer, self.layer)

    def relevance(self, found: Record) -> Tensor:
        return self.layer_maps(found)[0]

    def layer_maps(self, found: Record) -> list[Tensor]:
        R = found.grads["probs"]  # shape of each: (B, H, N, N)
        return maps_of_layers(found, lambda row, layer: row @ R[layer].clamp(min=0).mean(1), row=found.read)


class TransAttr(TokenAttribution):
    r"""Relevance of attention times its gradient, followed through all blocks.

    .. math:: C = \prod_l (I + \bar A_l), \qquad \bar A_l = E_h[(\nabla A_l \odot R^{A_l})^+]

    ``R`` is the relevance that reaches the attention probabilities, as in :class:`LRP`. The map is the CLS row
    of C; where the head reads several rows, :math:`r\,(I + T)` as in :class:`GenAtt`, with T = C - I. Not negative.

    Costs two forward passes, one of them in float64, and the backward pass of each: about 18 times the plain forward
    pass of a float32 model on a CPU. Half precision is refused, and the rest of what holds for :class:`LRP` holds
    too.

    Rows are not normalised, as in the source's code for images; its code for texts normalises them, and starts at
    the last block.

    Others state a patent claim on LRP: see docs/relevance-propagation.md.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: the first block of the product. The scripts of the source start at 1, its functions at 0.
        output: see :class:`TokenAttribution`.

    Source: Chefer et al., Transformer Interpretability Beyond Attention Visualization, equations 13 and 14.
    """

    reads_layer = True

    def __init__(self, forward_func: nn.Module, start_layer: int = 0, *, output: str = "grid") -> None:
        super().__init__(forward_func, start_layer, output=output)

    def want(self, transformer: Transformer) -> Want:
        return Want(grads=["probs"], relevance=True)

    def start(self, transformer: Transformer) -> int:
        return layer_index(transformer, self.layer)

    def relevance(self, found: Record) -> Tensor:
        return followed(*self._updates(found))

    def layer_maps(self, found: Record) -> list[Tensor]:
        """For each layer its own map by itself, without the identity."""
        return maps_of_updates(*self._updates(found))

    def _updates(self, found: Record) -> tuple[Record, list[Update]]:
        """Positive gradient x relevance of each block; gradients, and the head's row, come from a pass of their own."""
        want = Want(grads=["probs"], row="evidence")
        plain = self._record(found.inputs, found.target, found.args, lambda transformer: want, found.start)
        G, R = plain.grads["probs"], found.grads["probs"]  # shape of each: (B, H, N, N)
        return plain, [of_matrix(partial(_positive, G[layer], R[layer])) for layer in found.layers]


def _positive(G: Tensor, R: Tensor) -> Tensor:  # (B, H, N, N) twice -> (B, N, N)
    return (G * R).clamp(min=0).mean(1)


class ConservativeLRP(EntranceProducts):
    r"""Gradient x input with attention probabilities and the deviation in every norm held constant.

    .. math:: S_i = \sum_d x_{id}\,\partial f_c^{\mathrm{held}} / \partial x_{id}

    Relevance then is conserved by attention and norms, where plain gradient x input loses or invents it.
    Activations and gates have their plain gradient, which sets it apart from :class:`DecompX`: without activations
    the two are one. Signed, in logits. It is gradient x input under the rule ``"conservative"``, which other methods
    take too.

    Costs one forward and one backward pass, in the model's precision.

    Departs from the source in where it is read: the source explains the embedded words of texts; here that is the
    input of a block, the first by default, for images and texts alike.

    Others state a patent claim on LRP: see docs/relevance-propagation.md.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: the block whose input tokens are explained; the first by default.
        checkpoint: blocks save nothing for the backward pass, and run once more in it; see :class:`DecompX`.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Source: Ali et al., XAI for Transformers: Better Explanations through Conservative Propagation.
    """

    rule = "conservative"
