"""Which heads look where the prediction is: the attention of every block and head beside the prediction map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.attr.base import forward_args
from captum_vit.attr.prediction_map import PredicAtt, PredictionMap
from captum_vit.errors import InputError, TargetError
from captum_vit.studies.batches import Batches, batches_of
from captum_vit.trace.record.record import Record
from captum_vit.trace.run.score import plain_target
from captum_vit.trace.run.state import undisturbed, widened
from captum_vit.viz.blending import Picture
from captum_vit.viz.heads import Figure, head_mosaic, layer_bars


@dataclass(frozen=True)
class HeadAgreement:
    """How far the attention of each head agrees with the prediction map, block by block."""

    similarity: Tensor  # shape: (B, L, H), alpha before the softmax
    weights: Tensor  # shape: (B, L, H), what PredicAtt gives each head; they sum to 1 over blocks and heads
    attention: Tensor  # shape: (B, L, H, h, w); of a text (B, L, H, T)
    prediction: Tensor  # shape: (B, h, w); of a text (B, T)
    targets: list[int]  # the class that is explained, for each sample

    @property
    def most_similar(self) -> Tensor:  # shape: (B, 2)
        """Block and head of the attention map that agrees most, for each sample."""
        best, heads = self.similarity.flatten(1).argmax(1), self.similarity.shape[2]
        return torch.stack([best // heads, best % heads], 1)

    def plot(self, picture: Picture | None = None, sample: int = 0) -> Figure:
        """All attention maps of one image, block by head, each in a frame that shows its similarity.

        Args:
            picture: what the model saw, (3, H, W) in [0, 1] or PIL; maps are laid over it.
            sample: which image of the batch.
        """
        if self.attention.dim() != 5:
            raise InputError("Attention over images, to be drawn.", "a text", "`.similarity`, the numbers.")
        return head_mosaic(
            self.attention[sample],
            self.similarity[sample],
            self.weights[sample],
            self.prediction[sample],
            picture,
        )


def head_agreement(
    model: nn.Module,
    inputs: Tensor,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    layer: nn.Module | str | int = -1,
    score: str = "auto",
    similarity: str = "dot",
    temperature: float = 1.0,
) -> HeadAgreement:
    r"""The similarity of every head's attention with the prediction map, and the weight that follows from it.

    .. math:: \alpha_{lh} = \langle A^{lh}_{\mathrm{CLS}}, \Psi(c)\rangle, \qquad
        \tilde\alpha = \mathrm{softmax}_{lh}(\alpha / \tau)

    As in :class:`captum_vit.PredicAtt`, of which these are the inner parts. Costs what it costs: one forward pass.

    Args:
        model: as it was loaded, or a target module around it.
        inputs: images (B, 3, H, W) or token ids (B, T).
        target: the class, or one for each sample; None takes what the model predicts.
        additional_forward_args: further positional arguments of the model.
        layer: as for :class:`captum_vit.PredicAtt`.
        score: as for :class:`captum_vit.PredicAtt`.
        similarity: as for :class:`captum_vit.PredicAtt`.
        temperature: as for :class:`captum_vit.PredicAtt`.

    Returns:
        the agreement of every block and head, on the model's device; half precision becomes float32.

    Source: Prediction Maps, Figures 4 and 13 to 15, equations 4 and 6.
    """
    method = PredicAtt(model, layer, score=score, similarity=similarity, temperature=temperature)
    with undisturbed(model):
        want = method._want_every if target is None else method.want
        found = method._record(inputs, target, forward_args(additional_forward_args), want)
        if target is None:
            target = _predicted(found)
            found = found.of_output(target) if target is not None and found.row.shape[1] > 1 else found
        found.target = target
        psi = widened(found.layout.silence_padding(PredictionMap.relevance(method, found)))  # shape: (B, N)
        alpha = method._agreement(found, method._attention(found), psi.unsqueeze(-1))  # shape: (B, L*H, 1)
        depth, A = len(found.transformer.blocks), method._attention(found)
        rows = torch.cat([psi.unsqueeze(1), A], 1).mT  # shape: (B, N, 1 + L*H)
        maps = found.layout.to_grid(rows) if found.layout.grid else rows.mT  # shape: (B, 1 + L*H, ...)
        split = (depth, alpha.shape[1] // depth)
        return HeadAgreement(
            alpha.squeeze(-1).unflatten(1, split),
            method._weights(alpha).squeeze(-1).unflatten(1, split),
            maps[:, 1:].unflatten(1, split),
            maps[:, 0],
            _each(target, len(psi)),
        )


def _predicted(found: Record) -> Tensor | None:
    """The most probable class of each sample; None where the model has one output."""
    if found.output.dim() == 1 or found.output[0].numel() == 1:
        return None
    if found.output.dim() > 2:
        raise TargetError("A target, since the output has more than two dimensions.", "None", "target=(place, class).")
    return found.output.argmax(-1)


def _each(target: Any, n: int) -> list[Any]:
    target = plain_target(target)
    listed = target.tolist() if isinstance(target, Tensor) else target
    return listed if isinstance(listed, list) and len(listed) == n else [listed] * n


@dataclass(frozen=True)
class MostSimilarLayers:
    """From which block the most similar attention map came."""

    counts: Tensor  # shape: (L,), how many samples
    heads: Tensor  # shape: (n, 2), block and head for each sample

    def plot(self) -> Figure:
        """A bar for each block."""
        return layer_bars(self.counts)


def most_similar_layers(model: nn.Module, data: Batches, **options: Any) -> MostSimilarLayers:
    """How often the attention map most similar to the prediction map came from each block.

    Costs one forward pass for each batch.

    Args:
        model: as it was loaded.
        data: inputs, ``(inputs, targets)``, or an iterable of these; without targets, what the model predicts.
        options: ``layer``, ``score``, ``similarity``, as for :func:`head_agreement`.

    Source: Prediction Maps, Figure 22: the prediction map of the predicted class at the last layer.
    """
    found, depth = [], 0
    for batch in batches_of(data):
        heads = head_agreement(model, batch.inputs, batch.targets, batch.args, **options)
        depth = heads.similarity.shape[1]
        found.append(heads.most_similar.cpu())
    every = torch.cat(found)
    return MostSimilarLayers(every[:, 0].bincount(minlength=depth), every)
