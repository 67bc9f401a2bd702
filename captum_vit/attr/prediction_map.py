"""What the head says of every patch, and the attention that agrees with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.attr.base import TokenAttribution, widened
from captum_vit.errors import LayerError, OptionError
from captum_vit.models.spec import spec_of
from captum_vit.trace.gradient import Layer, block_of, literal_module
from captum_vit.trace.record import Record, Want
from captum_vit.trace.score import SCORES, repeat_target, select, transform
from captum_vit.trace.site import Site
from captum_vit.trace.state import undisturbed
from captum_vit.trace.tail import readout


class PredictionMap(TokenAttribution):
    r"""What the model would say if a patch's token were all it had.

    .. math:: \Psi_i(c) = \nu(x_i)_c

    ``nu`` is everything the model does after its blocks (final norm, pooling, head), run on a sequence
    that consists of the token x_i alone. At the last layer the CLS row of a CLS-pooled model is the
    model's own prediction. Probabilities by default: each token's reading sums to 1 over classes.

    Costs one forward pass without a graph; the head on every token is about one per cent more, for one
    class or for all.

    Departs from the source nowhere for CLS-pooled models; for other poolings, which the source leaves out,
    nu is the same pooling over copies of one token.

    Args:
        forward_func: the model, or a target module around it.
        layer: an int for the tokens that leave that block, a Module or dotted name for its output.
        score: ``"prob"``, ``"logit"``, or ``"auto"``: probabilities for a classifier, raw values for target
            modules, single outputs and regression.
        output: see :class:`TokenAttribution`.

    Source: Prediction Maps, equation 2.
    """

    def __init__(
        self, forward_func: nn.Module, layer: Layer = -1, *, score: str = "auto", output: str = "grid"
    ) -> None:
        super().__init__(forward_func, layer, output=output)
        if score not in SCORES:
            raise OptionError(f"`score` must be one of {', '.join(map(repr, SCORES))}.", repr(score))
        self.score = score

    def all_classes(
        self, inputs: Tensor | tuple[Tensor, ...], additional_forward_args: Any = None
    ) -> Tensor:  # shape: (B, C, h, w)
        """The maps of all classes at the price of one; (B, N, C) with ``output="tokens"`` and for text."""
        with undisturbed(self.model):
            found = self._record(inputs, None, additional_forward_args)
            scores = widened(found.layout.silence_padding(self._readings(found)))
            if self.output == "tokens" or found.layout.grid is None:
                return scores
            if self.output == "grid":
                return found.layout.to_grid(scores)
            return found.layout.to_pixels(scores)

    def _want(self) -> Want:
        return Want(site=self._site())

    def _site(self) -> Site:
        layer = -1 if self.layer is None else self.layer
        if isinstance(layer, int):
            return Site(block_of(spec_of(self.model), layer), "output")
        return Site(literal_module(self.model, layer), "output")

    def _readings(self, found: Record) -> Tensor:  # shape: (B, N, C)
        tokens = found.at_site
        if tokens is None or tokens.dim() != 3:
            raise LayerError(
                "A layer whose output is a sequence of tokens (B, N, D).",
                "nothing" if tokens is None else f"shape {tuple(tokens.shape)}",
                "an int for a block, or the block itself.",
            )
        said = readout(self.model, found.transformer, tokens, found.layout.prefix, found.inputs, found.args)
        return transform(said, self.score, self.model)

    def _relevance(self, found: Record) -> Tensor:
        scores = self._readings(found)  # shape: (B, N, C)
        n_tokens = scores.shape[1]
        return select(scores.flatten(0, 1), repeat_target(found.target, n_tokens)).unflatten(0, (-1, n_tokens))


class PredicAtt(PredictionMap):
    r"""The prediction map, seen through those attention maps that agree with it.

    .. math::
        \alpha_{lh} = \langle A^{lh}_{\mathrm{CLS}}, \Psi(c)\rangle,\quad
        \tilde A = \sum_{lh} \mathrm{softmax}(\alpha)_{lh}\, A^{lh}_{\mathrm{CLS}},\quad
        S = \tilde A \odot \Psi(c)

    One softmax runs over all heads of all layers together. Products are over patches (of a text, over all
    tokens but CLS). Not negative with
    probabilities. Costs one forward pass and one row of attention for each head; no gradient, but for a backward pass
    through the head alone that finds the rows it reads. Where those are not the CLS row alone (mean or
    attention pooling) it costs a second pass, with attention written out.

    Args:
        forward_func: the model, or a target module around it.
        layer: where the prediction map is read; the attention of all layers is used.
        score: see :class:`PredictionMap`.
        similarity: ``"dot"`` as in the paper, or ``"cosine"``, its alternative.
        output: see :class:`TokenAttribution`.

    Source: Prediction Maps, equations 3 to 6.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        layer: Layer = -1,
        *,
        score: str = "auto",
        similarity: str = "dot",
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, layer, score=score, output=output)
        if similarity not in ("dot", "cosine"):
            raise OptionError("`similarity` must be 'dot' or 'cosine'.", repr(similarity))
        self.similarity = similarity

    def _want(self) -> Want:
        return Want(seen=["probs"], pool=True, first_row=True, site=self._site())

    def _relevance(self, found: Record) -> Tensor:
        layout = found.layout
        psi = layout.silence_padding(super()._relevance(found))  # shape: (B, N)
        A = torch.cat([found.attended(layer) for layer in found.layers], 1)  # shape: (B, L*H, N)
        others = (found.pool != 1).to(psi)  # shape: (B, N), 0 at a CLS token, whose attention to itself is left out
        patches = layout.patches(others).unsqueeze(1)
        alpha = self._agreement(A[..., layout.prefix :] * patches, layout.patches(psi).unsqueeze(1) * patches)
        attended = (alpha.softmax(-1).unsqueeze(-1) * A).sum(1)
        return attended * psi

    def _agreement(self, A: Tensor, psi: Tensor) -> Tensor:  # (B, L*H, n), (B, 1, n) -> (B, L*H)
        return F.cosine_similarity(A, psi, dim=-1) if self.similarity == "cosine" else (A * psi).sum(-1)
