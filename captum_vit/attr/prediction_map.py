"""What the head computes from every single patch, and the attention that agrees with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.attr.base import TokenAttribution
from captum_vit.errors import InputError, LayerError, OptionError, UnsupportedModelError
from captum_vit.models.transformer import Transformer
from captum_vit.options import boolean, number, one_of
from captum_vit.sites.site import Place, Site
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.replay.by_place import belong_to_places
from captum_vit.trace.replay.subnetwork import readout
from captum_vit.trace.run.layers import Layer, block_of, chosen_layers, listed, literal_module
from captum_vit.trace.run.score import SCORES, repeat_target, select, transform
from captum_vit.trace.run.state import undisturbed, widened

ATTENTIONS = ("chosen", "mean", "none")
SIMILARITIES = ("dot", "cosine")


class PredictionMap(TokenAttribution):
    r"""What the model would answer if it had nothing but the token of one patch.

    .. math:: \Psi_i(c) = \nu(x_i)_c

    ``nu`` is everything the model does after its blocks (final norm, pooling, head), run on a sequence
    that consists only of the token x_i. At the last layer the CLS row of a CLS-pooled model is the
    model's own prediction. Probabilities by default, from 0 to 1: each token's reading sums to 1 over classes,
    unless the model is multi-label.
    Logits and raw values are signed.

    Costs one forward pass without a graph; the head on every token is about one per cent more, for one
    class or for all. Two backward passes of one sample through the head find whether its outputs belong to places.

    Departs from the source nowhere for CLS-pooled models; for other poolings, which the source leaves out,
    nu is the same pooling over copies of one token. A head whose outputs belong to places (the mean score of a box
    of patches, say) is refused: copies of one token are the same everywhere.

    Args:
        forward_func: the model, or a target module around it.
        layer: an int for the tokens that leave that block, a Module or dotted name for its output.
        score: ``"prob"``, ``"logit"``, or ``"auto"``: probabilities for a classifier (of a multi-label one a
            sigmoid each), raw values for target modules, single outputs and regression.
        output: see :class:`TokenAttribution`.

    Raises:
        UnsupportedModelError: the outputs of the head belong to places.

    Source: Prediction Maps, equation 2.
    """

    reads_layer = True

    def __init__(
        self, forward_func: nn.Module, layer: Layer = -1, *, score: str = "auto", output: str = "grid"
    ) -> None:
        super().__init__(forward_func, layer, output=output)
        self.score = one_of("score", score, SCORES)

    def all_classes(
        self, inputs: Tensor | tuple[Tensor, ...], additional_forward_args: Any = None
    ) -> Tensor:  # shape: (B, C, h, w)
        """The maps of all classes at the price of one; (B, N, C) with ``output="tokens"`` and for text."""
        with undisturbed(self.model):
            found = self._record(inputs, None, additional_forward_args, self._want_every)
            return self._finish_classes(self._every(found), found.layout, inputs)

    def want(self, transformer: Transformer) -> Want:
        return Want(site=self._site(transformer))

    def _want_every(self, transformer: Transformer) -> Want:
        """For the maps of all classes."""
        return self.want(transformer)

    def _every(self, found: Record) -> Tensor:  # shape: (B, N, C)
        """The maps of all classes; of a head that scores every token, its scores of each."""
        scores = self._readings(found)
        return scores.squeeze(2) if scores.dim() == 4 else scores

    def _site(self, transformer: Transformer) -> Place:
        layer = -1 if self.layer is None else self.layer
        if isinstance(layer, int):
            return block_of(transformer, layer).out
        return Site(literal_module(self.model, layer), "output")

    def _readings(self, found: Record) -> Tensor:  # shape: (B, N, C)
        tokens = found.at_site
        if tokens is None or tokens.dim() != 3:
            raise LayerError(
                "A layer whose output is a sequence of tokens (B, N, D).",
                "nothing" if tokens is None else f"shape {tuple(tokens.shape)}",
                "an int for a block, or the block itself.",
            )
        if belong_to_places(found.call, tokens, found.target):
            raise UnsupportedModelError(
                "A head whose outputs all read the same tokens, since on copies of one token they are equal.",
                f"{type(self.model).__name__}, with outputs that read the tokens of places of their own",
                "DecompX or LayerCDAM, which follow the tokens that the target's output reads.",
            )
        said = readout(found.call, tokens, found.layout)
        output = found.output
        if said.isnan().any() and not output.isnan().any():
            raise UnsupportedModelError(
                "A head that scores one token as it scores all.",
                f"{type(self.model).__name__}, whose scores of one token are NaN",
                "DecompX or LayerCDAM, which follow the tokens that the target's output reads.",
            )
        if output.dim() == 1:  # one number for each sample, and so for each token
            said, output = said.unsqueeze(-1), output.unsqueeze(-1)
        if said.shape[-1] != output.shape[-1]:
            raise InputError(
                "Further arguments that hold one value for each sample, where they are as long as the batch.",
                f"{said.shape[-1]} scores for a single sample, {output.shape[-1]} for one in the batch",
                "a module that holds what all samples share, such as ConceptSimilarity or TextSimilarity.",
            )
        if output.dim() == 3 and said.shape[2] != output.shape[1]:
            said = said[:, :, -1:]  # a head that scores every token, prefix included, gives the same for every row
        return transform(said, self.score, self.model)

    def relevance(self, found: Record) -> Tensor:
        scores = self._readings(found)  # shape: (B, N, C)
        batch, n_tokens = scores.shape[:2]
        everywhere = scores.flatten(0, 1).expand(batch * n_tokens, *(found.output.shape[1:] or (1,)))
        return select(everywhere, repeat_target(found.target, n_tokens)).unflatten(0, (batch, n_tokens))


class PredicAtt(PredictionMap):
    r"""The prediction map, seen through those attention maps that agree with it.

    .. math::
        \alpha_{lh} = \langle A^{lh}_{\mathrm{CLS}}, \Psi(c)\rangle,\quad
        \tilde A = \sum_{lh} \mathrm{softmax}(\alpha / \tau)_{lh}\, A^{lh}_{\mathrm{CLS}},\quad
        S = \tilde A \odot \Psi(c)

    Where the head reads several rows, ``A`` is read in the row r of :class:`GenAtt` in the place of CLS: each class has
    its own.

    One softmax runs over all heads of all layers together. Products are over patches (of a text, over all
    tokens but CLS). Not negative with probabilities.

    Costs one forward pass and one row of attention for each head, for one class or for all
    (:meth:`PredictionMap.all_classes`); no gradient, but for a backward pass through the head, which finds
    the rows that it reads. Where those are more than the CLS row (mean or attention pooling) it costs a second pass,
    with attention written out, and all classes at once a backward pass through the head and a row of attention each.

    The paper's Table 4 in options: its line (i), the mean of all attention maps, is
    ``attention="mean", prediction=False`` (the same for every class); (ii), only the chosen attention,
    ``prediction=False``; (iii), only the prediction map, ``attention="none"``, which is :class:`PredictionMap`.
    ``attention="mean"`` by itself is the one that the table leaves out: the prediction map times the mean.

    Args:
        forward_func: the model, or a target module around it.
        layer: where the prediction map is read; its attention is another matter, see ``attention_layers``.
        score: see :class:`PredictionMap`.
        similarity: ``"dot"`` as in the paper, or ``"cosine"``, its alternative.
        output: see :class:`TokenAttribution`.
        attention: ``"chosen"`` weighs attention maps by their agreement, ``"mean"`` takes all alike,
            ``"none"`` leaves attention out.
        prediction: whether the attention is multiplied by the prediction map.
        attention_layers: indices of the blocks whose attention takes part; None means all.
        temperature: tau of the softmax, above 0; towards infinity it gives ``"mean"``.

    Raises:
        OptionError: an unknown option; neither attention nor prediction; no attention layer.

    Source: Prediction Maps, equations 3 to 6. The paper has neither ``attention_layers`` nor a temperature; the
    defaults are its.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        layer: Layer = -1,
        *,
        score: str = "auto",
        similarity: str = "dot",
        output: str = "grid",
        attention: str = "chosen",
        prediction: bool = True,
        attention_layers: Iterable[int] | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(forward_func, layer, score=score, output=output)
        self.similarity = one_of("similarity", similarity, SIMILARITIES)
        self.attention = one_of("attention", attention, ATTENTIONS)
        if attention == "none" and not prediction:
            raise OptionError("Attention, prediction, or both.", "neither", 'attention="mean" or "chosen".')
        self.prediction = boolean("prediction", prediction)
        self.temperature = number("temperature", temperature, above=0, hint="temperature=1.0, as in the paper.")
        self.attention_layers = listed("attention_layers", attention_layers)

    def want(self, transformer: Transformer) -> Want:
        if self.attention == "none":
            return super().want(transformer)
        return Want(seen=["probs"], row="evidence", first_row=True, site=self._site(transformer))

    def _want_every(self, transformer: Transformer) -> Want:
        want = self.want(transformer)
        return want if want.row is None else replace(want, row="evidence by output")

    def start(self, transformer: Transformer) -> int:
        return self._taking_part(transformer)[0]

    def _taking_part(self, transformer: Transformer) -> list[int]:
        """The blocks whose attention takes part, as 0 ... L-1."""
        return chosen_layers(transformer, self.attention_layers)

    def relevance(self, found: Record) -> Tensor:
        return self._seen_through(found, super().relevance(found))

    def _every(self, found: Record) -> Tensor:
        psi = super()._every(found)
        if self.attention == "none" or found.row.shape[1] == 1:
            return self._seen_through(found, psi)
        each = [self._seen_through(found.of_output(c), psi_c) for c, psi_c in enumerate(psi.flatten(2).split(1, 2))]
        return torch.cat(each, 2).reshape(psi.shape)

    def _seen_through(self, found: Record, psi: Tensor) -> Tensor:  # (B, N, ...) -> the same
        """Every prediction map times the attention that agrees with it."""
        if self.attention == "none":
            return psi
        maps = widened(found.layout.silence_padding(psi)).reshape(*psi.shape[:2], -1)  # shape: (B, N, C)
        A = self._attention(found)
        if self.attention == "mean":
            attended = A.mean(1).unsqueeze(-1).expand_as(maps)
        else:
            attended = A.mT @ self._weights(self._agreement(found, A, maps))
        return (attended * maps if self.prediction else attended).reshape(psi.shape)

    def _attention(self, found: Record) -> Tensor:  # shape: (B, L*H, N)
        """What the head's row attends to, in every head that takes part."""
        return widened(torch.cat([found.attended(layer) for layer in self._taking_part(found.transformer)], 1))

    def _agreement(self, found: Record, A: Tensor, psi: Tensor) -> Tensor:  # (B, L*H, N), (B, N, C) -> (B, L*H, C)
        """Alpha: the similarity of every attention map with the prediction map of every class."""
        others = (found.row.squeeze(1) != 1).to(psi)  # shape: (B, N), 0 at CLS: its attention to itself is left out
        others = found.layout.silence_special(others)
        A, psi = A * others.unsqueeze(1), psi * others.unsqueeze(2)
        if self.similarity == "cosine":
            A, psi = F.normalize(A, dim=2), F.normalize(psi, dim=1)
        return A @ psi

    def _weights(self, alpha: Tensor) -> Tensor:  # (B, L*H, C) -> the same
        """One softmax over all heads of all layers."""
        return (alpha / self.temperature).softmax(1)
