"""Attention weighted by its gradient."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial, reduce
from typing import Any

import torch
from captum._utils.typing import TargetType
from captum.log import log_usage
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.attr.base import TokenAttribution
from captum_vit.models.transformer import Transformer
from captum_vit.options import boolean, one_of
from captum_vit.tokens import TokenLayout
from captum_vit.trace.record.evidence import followed, maps_of_row, maps_of_updates, of_attention
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.run.layers import Layer, block_index
from captum_vit.trace.run.state import undisturbed

ROWS = ("cls", "mean")
HEADS = ("mean", "abs")


class WeightedAttention(TokenAttribution):
    """What methods on attention and its gradient share: both, of every block, and the rows that the head reads."""

    def want(self, transformer: Transformer) -> Want:
        return Want(seen=["probs"], grads=["probs"], row="evidence", by_rows=True)


class GenAtt(WeightedAttention):
    r"""Positive evidence carried from layer to layer by attention and its gradient.

    .. math:: R \leftarrow R + \bar A_l R, \qquad \bar A_l = E_h[(\nabla A_l \odot A_l)^+], \qquad R = I

    The map is the CLS row of the final R. The gradient is that of the target's logit. Not negative.

    Where the head reads several rows (mean or attention pooling, CLS beside a mean) it is one more layer: the map is
    :math:`r\,(I + T)`, with the row r with which the head reads the tokens x for the target, and T the final R less I,
    each row scaled to a sum of 1,

    .. math:: r_i = \frac{e_i}{\sum_j e_j}, \qquad e_i = \Big(x_i \cdot \frac{\partial f_c}{\partial x_i}\Big)^+

    (x behind the last norm; of special tokens the absolute value; :class:`captum_vit.Want` has the rest). The source
    scales rows so where a further layer uses R (its equations 8 and 9); heads of several rows it does not treat.

    Costs one forward and one backward pass, and their memory. The row is carried from the last layer to the first in
    the backward pass, which forms some rows of A and of its gradient at a time (:func:`captum_vit.attention_memory`):
    no map is kept, and no product of two N x N matrices is formed.

    Common implementations differ: the authors' notebook for CLIP starts at the last layer, which leaves one
    layer's map; others mix the heads' gradients over the whole batch. Rules for cross-attention are not offered.

    Args:
        forward_func: the model, or a target module around it.
        output: see :class:`TokenAttribution`.

    Source: Chefer et al., Generic Attention-model Explainability (self-attention rules), called Relevance
    Propagation in the CDAM paper and GenAtt in the SkipPLUS paper.
    """

    def __init__(self, forward_func: nn.Module, *, output: str = "grid") -> None:
        super().__init__(forward_func, output=output)

    def relevance(self, found: Record) -> Tensor:
        return followed(found, [of_attention(layer) for layer in found.layers])

    def layer_maps(self, found: Record) -> list[Tensor]:
        """For each layer its own map by itself, as it is summed by PLUS (this is GradSAM)."""
        return maps_of_updates(found, [of_attention(layer) for layer in found.layers])


class GradSAM(WeightedAttention):
    r"""Attention times its positive gradient, in every block, summed: PLUS over :class:`GenAtt`.

    .. math:: S_j = \sum_l \bar A^l_{\mathrm{CLS}, j}, \qquad \bar A_l = E_h[(\nabla A_l \odot A_l)^+]

    Not negative. Where the head reads several rows, :math:`S = r\,(I + T)` with the row r of :class:`GenAtt` and T the
    sum of all :math:`\bar A_l`, each row scaled to a sum of 1. Costs one forward and one backward pass, and their
    memory: rows of A and of its gradient are formed as in :class:`GenAtt`.

    The original has no CLS row: it averages over all rows, ``rows="mean"`` here (padding excluded), and over
    layers where we sum, a constant factor. In the last block of a CLS-pooled model no other row has a gradient,
    so the two differ there only by 1 / N.

    Args:
        forward_func: the model, or a target module around it.
        rows: ``"cls"``, as the SkipPLUS paper evaluates it, or ``"mean"``, as the original.
        output: see :class:`TokenAttribution`.

    Source: Barkan et al., Grad-SAM; the SkipPLUS paper, section 3.4.
    """

    def __init__(self, forward_func: nn.Module, *, rows: str = "cls", output: str = "grid") -> None:
        super().__init__(forward_func, output=output)
        self.rows = one_of("rows", rows, ROWS)

    def want(self, transformer: Transformer) -> Want:
        return Want(seen=["probs"], grads=["probs"], row="evidence" if self.rows == "cls" else None, by_rows=True)

    def relevance(self, found: Record) -> Tensor:
        return reduce(torch.add, self.layer_maps(found))

    def layer_maps(self, found: Record) -> list[Tensor]:
        updates = [of_attention(layer) for layer in found.layers]
        if self.rows == "cls":
            return maps_of_updates(found, updates)
        return maps_of_row(found, updates, found.layout.mean_row(found.output))


class _OneBlock(WeightedAttention):
    """The head's row of one block's map; PLUS over it sums those of all."""

    reads_layer = True

    def __init__(self, forward_func: nn.Module, layer: Layer = None, *, output: str = "grid") -> None:
        super().__init__(forward_func, layer, output=output)

    def want(self, transformer: Transformer) -> Want:
        return Want(seen=["probs"], grads=["probs"], row="target", by_rows=True)

    def start(self, transformer: Transformer) -> int:
        return block_index(self.model, transformer, self.layer)

    def relevance(self, found: Record) -> Tensor:
        return self._maps(found, [found.start])[0]

    def layer_maps(self, found: Record) -> list[Tensor]:
        return self._maps(found, found.layers)

    def _maps(self, found: Record, layers: Iterable[int]) -> list[Tensor]:
        of = partial(self._of, layout=found.layout)
        return maps_of_row(found, [of_attention(layer, of) for layer in layers], found.read)

    def _of(self, A: Tensor, G: Tensor, layout: TokenLayout) -> Tensor:  # shape of each: (B, H, R, N)
        """The rows of which the map is one."""
        raise NotImplementedError


class AttnGrad(_OneBlock):
    r"""The gradient of the target with respect to the attention that the head's row pays, in one block.

    .. math:: S_j = E_h[\nabla A^h_{\mathrm{CLS}, j}] \qquad\text{or}\qquad S_j = E_h\,|\nabla A^h_{\mathrm{CLS}, j}|

    How much the score grows if the token is attended to a little more; attention itself does not
    count. What a mask hides (a later word, padding) cannot be attended to, and is zero. Signed, or not negative with
    ``heads="abs"``. Where the head reads several rows, the mean of
    those that the target's output reads: the gradient has their weights already.

    Costs one forward pass, without a graph before the block, and a backward pass to it.

    It is a part of GenAtt and of Transformer Attribution more than a method with a source of its own; as a
    baseline it shows what their factor A adds.

    Args:
        forward_func: the model, or a target module around it.
        layer: the block: its index, itself, its name, or a module inside it; the last by default.
        heads: ``"mean"`` of the gradients, or ``"abs"``, the mean of their absolute values.
        output: see :class:`TokenAttribution`.

    Source: the AttnGrad of the SkipPLUS paper, appendix E.
    """

    def __init__(
        self, forward_func: nn.Module, layer: Layer = None, *, heads: str = "mean", output: str = "grid"
    ) -> None:
        super().__init__(forward_func, layer, output=output)
        self.heads = one_of("heads", heads, HEADS)

    def _of(self, A: Tensor, G: Tensor, layout: TokenLayout) -> Tensor:
        G = G * A.ne(0)  # a word that is hidden has a gradient, and no part
        return G.abs() if self.heads == "abs" else G


class AttCAM(_OneBlock):
    r"""GradCAM on attention: each head's attention, weighted by the mean gradient over the patches.

    .. math:: S_j = E_h\big[w_h\,A^h_{\mathrm{CLS}, j}\big], \qquad
        w_h = \frac1n \sum_{j \in \mathrm{patches}} \nabla A^h_{\mathrm{CLS}, j}

    Signed. Where the head reads several rows, each has its own w, and the mean of those that the target's output reads
    is taken. Of a text, all real tokens count as patches.

    Costs one forward pass, without a graph before the block, and a backward pass to it.

    Chefer et al. call it GradCAM; their code drops negative relevance (``relu_attributions=True`` here), then
    rescales each map to [0, 1], which we leave to who draws it.

    Args:
        forward_func: the model, or a target module around it.
        layer: the block: its index, itself, its name, or a module inside it; the last by default, as in the source.
        output: see :class:`TokenAttribution`.

    Source: Chefer et al., Transformer Interpretability Beyond Attention Visualization; named AttCAM in the
    SkipPLUS paper.
    """

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        relu_attributions: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Explain a batch; see :meth:`TokenAttribution.attribute`.

        Args:
            inputs: images (B, 3, H, W) or token ids (B, T).
            target: the output to explain.
            additional_forward_args: further positional arguments of the model.
            relu_attributions: keep positive evidence only.
        """
        boolean("relu_attributions", relu_attributions)
        with undisturbed(self.model):
            found = self._record(inputs, target, additional_forward_args)
            relevance = self.relevance(found)
            return self._finish(F.relu(relevance) if relu_attributions else relevance, found.layout, inputs)

    def _of(self, A: Tensor, G: Tensor, layout: TokenLayout) -> Tensor:
        patches = layout.counted(A, prefix=False).view(len(A), 1, -1, 1)
        w = (G @ patches) / patches.sum(2, keepdim=True)  # shape: (B, H, R, 1), for each row its own
        return w * A
