"""Vector transformation measurement: how far attention and feed-forward change each vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.attr.base import TokenAttribution
from captum_vit.errors import OptionError
from captum_vit.models.transformer import Transformer
from captum_vit.options import boolean, one_of
from captum_vit.trace.record.evidence import followed, of_attention, of_weights, positive_evidence
from captum_vit.trace.record.parts import branch_kinds
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.record.written_by_heads import written_by_heads
from captum_vit.trace.run.score import SCORES
from captum_vit.trace.run.state import undisturbed, widened

TINY = 1e-8
VARIANTS = ("paper", "tokentm")


@dataclass(frozen=True)
class TransformationWeights:
    r"""The diagonals of W: how much each token counts by what a sub-layer does to its vector.

    .. math:: w_j = \frac{\|\tilde E_j\|}{\|E_j\|}\,\mathrm{softmax}_j \cos(E_j, \tilde E_j)

    All tokens are there, prefix included; padding has 0 with the softmax. Without a unit.

    Args:
        attention: for each block (B, H, N), one for each head; (B, 1, N) of ``variant="tokentm"``.
        feed_forward: for each block (B, N); empty for ``feed_forward=False``.
    """

    attention: tuple[Tensor, ...]
    feed_forward: tuple[Tensor, ...]


class VTranM(TokenAttribution):
    r"""Contributions of the input tokens, followed through attention *and* through what it does to vectors.

    .. math::
        C \leftarrow U\,C,\quad C^0 = \mathrm{diag}(\|x_{0j}\|),\quad
        U_{\mathrm{att}} = I + E_h[(\nabla_{A} p_c)^+ \odot A\,W^h],\quad U_{\mathrm{ff}} = I + W,

    .. math:: W = \mathrm{diag}\!\left(\frac{\|\tilde E_j\|}{\|E_j\|}\,
        \mathrm{softmax}_j \cos(E_j, \tilde E_j)\right)

    ``E`` is the residual stream and ``E~`` what a head (or the feed-forward) would add to it from only that
    token: for head h the values through that head's columns of the output projection. The map is the CLS row
    of the final ``C``. Not negative.

    Where the head reads several rows (mean or attention pooling, CLS beside a mean), the map is :math:`r\,(I + T)` with
    the row r of :class:`GenAtt`, and T what ``C`` has along paths through attention, each row scaled to a sum of 1.
    The source treats only CLS. Unscaled, the paths without attention would be nearly all of the map: each softmax
    over all tokens makes what comes through attention smaller.

    The weights W by themselves are :meth:`weights`.

    Costs one forward and one backward pass, and their memory; a row vector is carried from the last block to the first
    in the backward pass (see :class:`GenAtt`), and norms of per-head vectors come from d x d Gram matrices, so nothing
    of size N x N x N or H x N x D is formed, and no map of attention is kept.

    Departs from the source where it gives no rule: the softmax runs over all tokens, prefix included and padding
    excluded; value biases belong to their tokens, the output bias to no token; LayerScale counts. With
    ``length=False`` the start is the identity, as in the paper's Table 4.

    ``variant="tokentm"`` is the third-party form of it that was published with the LibraGrad paper: heads are
    averaged first and share one W, vectors are compared before and after each *residual sum*, and the logit is
    differentiated,

    .. math:: U_{\mathrm{att}} = I + E_h[(\nabla_A f_c)^+] \odot E_h[A]\,W(x_l, x_{\mathrm{mid}}),\quad
        U_{\mathrm{ff}} = I + W(x_{\mathrm{mid}}, x_{l+1}).

    It reads no values and no output projection, so it runs on models whose heads the paper's form cannot
    separate. In a post-norm block the stream is compared after its norms, where the source has none.

    Args:
        forward_func: the model, or a target module around it.
        score: what is differentiated: ``"prob"`` as in the paper, ``"logit"``, or ``"auto"``, which is
            ``"logit"`` for ``variant="tokentm"``.
        aggregate: False is the paper's baseline, its equation 8 applied to the input: only the
            attention of the first block, without weights.
        length: count the ratio of lengths, and start from the input's lengths.
        direction: count the normalised exponential cosine correlation.
        feed_forward: include the update maps of the feed-forward layers.
        output: see :class:`TokenAttribution`.
        variant: ``"paper"``, or ``"tokentm"``, which has no switches: it takes only ``score`` "logit" or "auto".

    Raises:
        OptionError: an unknown option, or one that contradicts the variant.

    Source: VTranM (later published as TokenTM), equations 8 to 20.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        *,
        score: str = "auto",
        aggregate: bool = True,
        length: bool = True,
        direction: bool = True,
        feed_forward: bool = True,
        output: str = "grid",
        variant: str = "paper",
    ) -> None:
        super().__init__(forward_func, output=output)
        self.score, self.variant = one_of("score", score, SCORES), one_of("variant", variant, VARIANTS)
        self.aggregate, self.length = boolean("aggregate", aggregate), boolean("length", length)
        self.direction, self.feed_forward = boolean("direction", direction), boolean("feed_forward", feed_forward)
        if variant == "tokentm":
            _refuse_contradiction(score, aggregate and length and direction and feed_forward)

    def want(self, transformer: Transformer) -> Want:
        if self.variant == "tokentm":
            kinds = ["probs", "tokens", "mid", "out"]
            return Want(seen=kinds, grads=["probs"], score="logit", row="evidence", by_rows=True)
        weighted = self.aggregate and (self.length or self.direction)
        kinds = ["probs", "tokens", *(["values", *branch_kinds(transformer)] if weighted else [])]
        if self.aggregate and self.feed_forward:
            kinds += ["mid", "before_norm" if transformer.post_norm else "out"]
        return Want(seen=kinds, grads=["probs"], score=self.score, row="evidence", by_rows=True)

    def relevance(self, found: Record) -> Tensor:
        if not self.aggregate:
            return followed(found, [of_attention(0)])
        of = _means_multiplied if self.variant == "tokentm" else positive_evidence
        updates = []
        for layer in found.layers:
            weights = self._attention_weights(found, layer) if self.length or self.direction else None
            updates.append(of_attention(layer, of, weights))
            if self.feed_forward:
                updates.append(of_weights(self._feed_forward_weights(found, layer)))
        return followed(found, updates, found.seen["tokens"][0].norm(dim=-1) if self.length else None)

    def weights(
        self, inputs: Tensor | tuple[Tensor, ...], additional_forward_args: Any = None
    ) -> TransformationWeights:
        """The transformation weights, which no target changes; one forward pass.

        Args:
            inputs: images (B, 3, H, W) or token ids (B, T).
            additional_forward_args: further positional arguments of the model.

        Raises:
            OptionError: options with which nothing is weighed: every weight is 1.
            InputError: as ``attribute`` does.
        """
        if not (self.aggregate and (self.length or self.direction)):
            raise OptionError("Weights that are counted.", "only weights of 1", "VTranM(model), with its defaults.")
        with undisturbed(self.model):
            found = self._record(inputs, None, additional_forward_args, self._want_weights)
            attention = tuple(widened(self._attention_weights(found, layer)) for layer in found.layers)
            layers = found.layers if self.feed_forward else ()
            return TransformationWeights(
                attention, tuple(widened(self._feed_forward_weights(found, layer)) for layer in layers)
            )

    def _want_weights(self, transformer: Transformer) -> Want:
        return Want(seen=self.want(transformer).seen)

    def _feed_forward_weights(self, found: Record, layer: int) -> Tensor:  # shape: (B, N)
        E = found.seen["mid"][layer]
        if self.variant == "tokentm":
            return self._change(found, E, found.seen["out"][layer])
        after = found.seen["before_norm" if found.transformer.post_norm else "out"][layer]
        return self._change(found, E, after - E)

    def _change(self, found: Record, E: Tensor, changed: Tensor) -> Tensor:  # (B, N, D) twice -> (B, N)
        """The weight of each token, from its vector and what it became."""
        return self._weights(found, E.norm(dim=-1), changed.norm(dim=-1), (E * changed).sum(-1))

    def _attention_weights(self, found: Record, layer: int) -> Tensor:  # shape: (B, H, N) or (B, 1, N)
        if self.variant == "tokentm":
            return self._change(found, found.seen["tokens"][layer], found.seen["mid"][layer]).unsqueeze(1)
        E, v = found.seen["tokens"][layer], found.seen["values"][layer]  # (B, N, D), (B, H, N, d)
        W_O = written_by_heads(found, layer)  # shape: (H, d, D)
        gram = W_O @ W_O.mT  # shape: (H, d, d)
        lengths = ((v @ gram) * v).sum(-1).clamp(min=0).sqrt()
        E_heads = torch.einsum("bnD,hdD->bhnd", E, W_O)
        return self._weights(found, E.norm(dim=-1).unsqueeze(1), lengths, (v * E_heads).sum(-1))

    def _weights(self, found: Record, before: Tensor, after: Tensor, dot: Tensor) -> Tensor:
        """Ratio of lengths times NECC, from two lengths and a dot product, over the last dimension."""
        weights = torch.ones_like(after)
        if self.length:
            weights = weights * after / before.clamp(min=TINY)
        if self.direction:
            cosine = dot / (before * after).clamp(min=TINY)
            if (keep := found.layout.keep) is not None:
                cosine = cosine.masked_fill(~(keep if cosine.dim() == 2 else keep.unsqueeze(1)), -torch.inf)
            weights = weights * cosine.softmax(-1)
        return weights


def _means_multiplied(A: Tensor, G: Tensor) -> Tensor:  # (B, H, R, N) twice -> (B, 1, R, N)
    r""":math:`E_h[(\nabla_A f_c)^+] \odot E_h[A]`"""
    return G.clamp(min=0).mean(1, keepdim=True) * A.mean(1, keepdim=True)


def _refuse_contradiction(score: str, whole: bool) -> None:
    """TokenTM has no switches, and differentiates the logit."""
    if score == "prob" or not whole:
        raise OptionError(
            'variant="tokentm" as its authors run it: the gradient of the logit, and every part.',
            'score="prob"' if score == "prob" else "a part switched off",
            'variant="paper", whose parts can be switched off.',
        )
