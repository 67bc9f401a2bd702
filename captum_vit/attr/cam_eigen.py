"""The direction in which tokens differ most."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_vit.attr.base import TokenAttribution
from captum_vit.errors import LayerError
from captum_vit.models.transformer import Transformer
from captum_vit.options import boolean
from captum_vit.sites.site import Place, Site
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.run.layers import Layer, literal_module, reading_point
from captum_vit.trace.run.state import widened


class TokenEigenCAM(TokenAttribution):
    r"""Tokens along their first principal component: where the features stand out, for no class.

    .. math:: S_i = (x_i - \bar x) \cdot v, \qquad v = \arg\max_{|v| = 1} \sum_i \big((x_i - \bar x) \cdot v\big)^2

    Mean and component are those of the patches (of a text, of its real words). A component has no sign of its own:
    here the patch that stands out most is positive. Signed. The target has no part.

    Costs one forward pass, and the eigenvectors of an N x N matrix. No gradients.

    The pytorch-grad-cam package leaves the sign to its library, drops CLS, then rectifies the map and rescales it to
    [0, 1].

    Args:
        forward_func: the model, or a target module around it.
        layer: an int for a block's reading point (see :class:`LayerCDAM`), a Module or dotted name for its output, None
            for the last block.
        include_prefix: CLS and registers count in mean and component too; padding never does.
        output: see :class:`TokenAttribution`.

    Raises:
        LayerError: the layer's output is no sequence of tokens.

    Source: Muhammad and Yeasin, Eigen-CAM, there for convolutions.
    """

    reads_layer = True

    def __init__(
        self, forward_func: nn.Module, layer: Layer = None, *, include_prefix: bool = False, output: str = "grid"
    ) -> None:
        super().__init__(forward_func, layer, output=output)
        self.include_prefix = boolean("include_prefix", include_prefix)

    def want(self, transformer: Transformer) -> Want:
        return Want(site=self._site(transformer))

    def _site(self, transformer: Transformer) -> Place:
        if self.layer is None or isinstance(self.layer, int):
            return reading_point(transformer, -1 if self.layer is None else self.layer)
        return Site(literal_module(self.model, self.layer), "output")

    def relevance(self, found: Record) -> Tensor:
        x = found.at_site
        if x is None or x.dim() != 3 or x.shape[1] != found.layout.n_tokens:
            got = "nothing" if x is None else f"shape {tuple(x.shape)}"
            raise LayerError("A layer whose output is a sequence of tokens (B, N, D).", got, "an int for a block.")
        return along_first_component(widened(x), found.layout.counted(x, self.include_prefix))


def along_first_component(
    x: Tensor,  # shape: (B, N, D)
    counted: Tensor,  # shape: (B, N) or (1, N), 1 for the tokens whose mean and component are taken
) -> Tensor:  # shape: (B, N)
    """Each token less their mean, along the direction in which they vary most; the largest of them is positive."""
    weights = counted.to(x).unsqueeze(2)
    x = x - (weights * x).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    among = weights * x
    u = torch.linalg.eigh(among @ among.mT).eigenvectors[..., -1:]  # shape: (B, N, 1), left singular vector
    v = among.mT @ u  # shape: (B, D, 1), the component, and its singular value as its length
    S = (x @ v).squeeze(2) / v.squeeze(2).norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    largest = (S * counted.to(S)).gather(1, (S * counted.to(S)).abs().argmax(1, keepdim=True))
    return S * torch.where(largest < 0, -1.0, 1.0)
