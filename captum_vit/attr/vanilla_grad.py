"""The gradient at tokens, nothing else."""

from __future__ import annotations

from torch import Tensor, nn

from captum_vit.attr.base import MAPS, InputProducts
from captum_vit.options import one_of
from captum_vit.trace.record.record import Record


class VanillaGrad(InputProducts):
    r"""How steeply the score changes with a token where it enters a block.

    .. math:: S_i = \Bigl\|\frac{\partial f_c}{\partial x_i}\Bigr\|_2 \qquad\text{or}\qquad
        S_i = \sum_d \frac{\partial f_c}{\partial x_{id}}

    The length is not negative; the sum is signed. Logits by units of the stream. PLUS and SkipPLUS sum the maps of all
    start blocks. Costs one forward and one backward pass.

    In a pre-norm model with LayerNorm **the sum is zero by algebra**, at every block: nothing reads the stream but
    through a norm that takes away its mean, so one number added to all channels of a token changes nothing, and the
    gradient's sum over channels vanishes. What a computer finds are roundings. That map is zero here, with a
    :class:`ZeroMapWarning`. Post-norm models and those with RMSNorm have such a sum.

    The gradient at pixels, summed over patches, is Captum's: ``METHODS["Saliency"]``.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: the block whose input tokens are explained; the first by default.
        reduce: ``"norm"``, the length over channels (the source's VanillaGrad:Norm2); ``"sum"``, its VanillaGrad.
        checkpoint: blocks save nothing for the backward pass, and run once more in it; see :class:`DecompX`.
        output: see :class:`TokenAttribution`.

    Source: the SkipPLUS paper, appendix E; Simonyan et al., Deep Inside Convolutional Networks.
    """

    outputs = MAPS
    rule = "grad"

    def __init__(
        self,
        forward_func: nn.Module,
        start_layer: int = 0,
        *,
        reduce: str = "norm",
        checkpoint: bool = False,
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, start_layer, checkpoint=checkpoint, output=output)
        self.reduce = one_of("reduce", reduce, ("norm", "sum"))

    @property
    def multiplies_by_inputs(self) -> bool:
        """False: it is only the gradient."""
        return False

    def relevance(self, found: Record) -> Tensor:
        return self.layer_maps(found)[0]

    def layer_maps(self, found: Record) -> list[Tensor]:
        gradients = [found.grads["tokens"][layer] for layer in found.layers]  # shape of each: (B, N, D)
        return gradients if self.reduce == "sum" else [gradient.norm(dim=-1) for gradient in gradients]
