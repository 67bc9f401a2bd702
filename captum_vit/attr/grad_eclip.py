"""The gradient at the head's row of attention, times the values of all tokens, weighed by what the query looks for."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.attr.base import TokenAttribution
from captum_vit.models.transformer import Transformer
from captum_vit.options import boolean, one_of
from captum_vit.trace.modes.by_rows import weighing
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.run.layers import chosen_layers, listed

WEIGHTS = ("cosine", "none")


class GradECLIP(TokenAttribution):
    r"""What each token's value would add to the score, if the head's row attended to it as its query resembles its key.

    .. math::
        S_i = \sum_l \lambda_i\,\frac{\partial f_c}{\partial o_{\mathrm{CLS}}} \cdot v_i, \qquad
        \lambda_i = \frac{c_i - \min_j c_j}{\max_j c_j - \min_j c_j}, \qquad c_i = \cos(q_{\mathrm{CLS}}, k_i)

    o are the contexts of all heads of block l side by side (what the output projection reads), v, q and k its values,
    queries and keys, likewise. Softmax attention is replaced by :math:`\lambda`, since it is so sparse; the gradient is
    that of the model as it is. Only the last block is read by default. Minimum and maximum run over the patches to
    which the row may attend, of a text over its real words; what a mask hides is zero. Signed; ``signed=False`` drops
    what speaks against the target, as the source does.

    Where the head reads several rows (mean or attention pooling), each has its own :math:`\lambda` and gradient, and
    the sum of these maps is taken: the gradients have the weights of the pooling already.

    Costs one forward pass, without a graph before the first block that takes part, and a backward pass to its
    attention. With ``TextSimilarity`` it explains the image tower of a CLIP, with ``ImageSimilarity`` its text tower,
    whose row is that of the end of the text; the authors sum its last eight blocks (``layers=range(-8, 0)``).

    The authors' code computes the attention of these blocks with one head in the place of the model's, so that its
    score is not the model's; for CLIP it sends queries and keys through the output projection first. Of a text its
    minimum and maximum also run over padding and what lies behind the end, and it shows the words between the first and
    the last, scaled to a sum of 1. On a plain vision transformer with one head the map is theirs.

    Args:
        forward_func: the model, or a target module around it.
        layers: indices of the blocks that take part; None means all.
        weights: ``"cosine"``, the :math:`\lambda` above; ``"none"``, one for each token.
        signed: keep what speaks against the target; False rectifies the sum, as the source does.
        output: see :class:`TokenAttribution`.

    Raises:
        OptionError: an unknown option; no layer.
        TraceError: a block whose attention is no softmax of products of queries and keys.

    Source: Zhao et al., Gradient-based Visual Explanation for Transformer-based CLIP.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        *,
        layers: Iterable[int] | None = (-1,),
        weights: str = "cosine",
        signed: bool = True,
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, output=output)
        self.layers = listed("layers", layers)
        self.weights = one_of("weights", weights, WEIGHTS)
        self.signed = boolean("signed", signed)

    def want(self, transformer: Transformer) -> Want:
        return Want(seen=["probs", "values", "queries", "keys"], grads=["context"], row="target", by_rows=True)

    def start(self, transformer: Transformer) -> int:
        return chosen_layers(transformer, self.layers)[0]

    def relevance(self, found: Record) -> Tensor:
        found.backward()
        maps = [self._signed_map(found, layer) for layer in chosen_layers(found.transformer, self.layers)]
        return self._as_wanted(torch.stack(maps).sum(0))

    def layer_maps(self, found: Record) -> list[Tensor]:
        """For each layer its own map by itself."""
        found.backward()
        return [self._as_wanted(self._signed_map(found, layer)) for layer in found.layers]

    def _as_wanted(self, relevance: Tensor) -> Tensor:
        return relevance if self.signed else F.relu(relevance)

    def _signed_map(self, found: Record, layer: int) -> Tensor:  # shape: (B, N)
        kinds = [found.grads["context"], *(found.seen[kind] for kind in ("values", "queries", "keys"))]
        g, v, q, k = (kind[layer].transpose(1, 2).flatten(2) for kind in kinds)  # shape of each: (B, N, H * d)
        g = g * found.row.mT.ne(0)  # in earlier blocks other rows have gradients too
        counted = found.layout.counted(v, prefix=False).unsqueeze(1).bool()
        relevance = torch.zeros_like(v[..., 0])
        for rows, A in found.attention(layer).rows(*weighing(found.row)):
            hidden = A.eq(0).all(1)  # shape: (B, R, N)
            added = g[:, rows] @ v.mT
            if self.weights == "cosine":
                added = added * loosened(q[:, rows], k, counted & ~hidden)
            relevance = relevance + added.masked_fill(hidden, 0).sum(1)
        return relevance


def loosened(
    q: Tensor,  # shape: (B, R, D)
    k: Tensor,  # shape: (B, N, D)
    among: Tensor,  # shape: (B, R, N), the keys over which the smallest is 0 and the largest 1
) -> Tensor:  # shape: (B, R, N)
    """How alike queries and keys are, on a scale of their own for each query."""
    cosine = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
    least = cosine.masked_fill(~among, torch.inf).amin(-1, keepdim=True)
    most = cosine.masked_fill(~among, -torch.inf).amax(-1, keepdim=True)
    spread = (most - least).clamp(min=torch.finfo(cosine.dtype).tiny)
    return ((cosine - least) / spread).masked_fill(~among.any(-1, keepdim=True), 0)
