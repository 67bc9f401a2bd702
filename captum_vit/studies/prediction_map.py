"""How a prediction comes about: what the head makes of the CLS token and of the patches after every block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.attr.prediction_map import PredictionMap
from captum_vit.errors import InputError, TargetError, UnsupportedModelError
from captum_vit.models.output import probability_of
from captum_vit.studies.batches import Batch, Batches, batches_of
from captum_vit.trace.record.record import Record, Want, record
from captum_vit.trace.replay.subnetwork import SubNetwork
from captum_vit.trace.run.describe import transformer_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.score import plain_target
from captum_vit.trace.run.state import checked_inputs, undisturbed, widened
from captum_vit.viz.studies import Figure, layer_curves


@dataclass(frozen=True)
class Readings:
    """What the head makes of one kind of token after each block: a row for each sample; ``.mean(0)`` over them."""

    accuracy: Tensor  # shape: (n, L), 1 where the most probable class is the target; of patches, the share of them
    confidence: Tensor  # shape: (n, L), the gap between the two greatest logits
    entropy: Tensor  # shape: (n, L), of the probabilities, in nats


@dataclass(frozen=True)
class PerLayer:
    """Readings of every layer, on the CPU: of what the head pools, and of the patches (means over each sample).

    ``pooled`` is the CLS token's reading where the head reads the CLS token (``reads_cls``); for other poolings
    it is what the head makes of the layer's tokens as it pools them. At the last layer it is the model's output.
    """

    pooled: Readings
    patches: Readings
    reads_cls: bool

    def plot(self) -> Figure:
        """Three panels over blocks, means with their 95 % intervals over samples."""
        kinds = {"CLS token" if self.reads_cls else "pooled": self.pooled, "patches": self.patches}
        return layer_curves({kind: vars(readings) for kind, readings in kinds.items()})


def per_layer(model: nn.Module, data: Batches) -> PerLayer:
    r"""Accuracy, confidence and entropy after each block, of the CLS token and of the patch tokens.

    Every token that leaves block l is read by itself, :math:`\nu(x_i^l)`, as in :class:`captum_vit.PredictionMap`:
    confidence is the gap of the two greatest logits, entropy :math:`-\sum_c p_c \ln p_c`. Text counts all
    words but CLS and padding as patches.

    Costs one forward pass for each batch, and the head on every token of every layer.

    Args:
        model: a classifier, or a target module that gives class logits.
        data: ``(inputs, targets)``, ``(inputs, targets, additional_forward_args)``, or an iterable of these.

    Raises:
        TargetError: a batch without its classes, or with some that the model does not have.
        UnsupportedModelError: outputs that are not logits of two or more classes.

    Source: Prediction Maps, appendix A.6, Figures 19 to 21 (there for CLS-pooled models).

    Example:
        >>> per_layer(model, (images, labels)).pooled.accuracy.mean(0)  # doctest: +SKIP
    """
    parts = [_read_layers(model, batch) for batch in batches_of(data)]
    if len({part.reads_cls for part in parts}) > 1:
        got = "CLS in one, other rows in another"
        raise InputError("Batches that the head reads in the same way.", got, "per_layer for each kind by itself.")
    pooled, patches = (_joined([getattr(part, kind) for part in parts]) for kind in ("pooled", "patches"))
    return PerLayer(pooled, patches, parts[0].reads_cls)


def _joined(parts: Sequence[Readings]) -> Readings:
    return Readings(*(torch.cat(columns).cpu() for columns in zip(*(vars(p).values() for p in parts), strict=True)))


def _read_layers(model: nn.Module, batch: Batch) -> PerLayer:
    """One batch; the shape of every reading is (B, L)."""
    with undisturbed(model):
        inputs = checked_inputs(batch.inputs, model)
        transformer = transformer_of(model, inputs, batch.args)
        found = record(Pass(model, inputs, batch.args, transformer), None, Want(seen=["out"]))
        labels = _labels(batch.targets, found.output, model)
        head, reader = (
            SubNetwork(model, found.transformer, len(transformer.blocks)),
            PredictionMap(model, score="logit"),
        )
        pooled, alone = [], []
        for layer in found.layers:
            tokens = found.seen["out"][layer]
            whole = head(tokens, *inputs, *batch.args)  # shape: (B, C)
            each = reader._readings(replace(found, at_site=tokens))  # shape: (B, N, C)
            pooled.append(_reading(whole, labels))
            alone.append(_reading(each, labels.unsqueeze(1)))
        reads_cls = bool((each[:, 0] - whole).abs().max() <= 0.03 * whole.abs().max())
        counted = _patches(found, reads_cls)
    share = counted / counted.sum(1, keepdim=True)  # shape: (B, N)
    means = [Readings(*((reading * share).sum(1) for reading in vars(r).values())) for r in alone]
    return PerLayer(_stacked(pooled), _stacked(means), reads_cls)


def _reading(
    logits: Tensor,  # shape: (..., C)
    labels: Tensor,  # shape: (...)
) -> Readings:
    logits = widened(logits)
    top, log_p = logits.topk(2, -1), logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return Readings((top.indices[..., 0] == labels).to(logits), top.values[..., 0] - top.values[..., 1], entropy)


def _stacked(layers: Sequence[Readings]) -> Readings:
    return Readings(*(torch.stack(columns, 1) for columns in zip(*(vars(r).values() for r in layers), strict=True)))


def _patches(found: Record, reads_cls: bool) -> Tensor:  # shape: (B, N), 1 at patches, or at words but CLS
    layout = found.layout
    counted = torch.ones(len(found.output), layout.n_tokens, device=found.output.device)
    if layout.special:
        counted = layout.silence_special(counted)
    else:
        counted[:, : int(reads_cls)] = 0
    return widened(layout.silence_padding(counted)).to(widened(found.output))


def _labels(targets: Any, output: Tensor, model: nn.Module) -> Tensor:  # shape: (B,)
    """One class for each sample, checked."""
    if output.dim() != 2 or output.shape[1] < 2 or probability_of(model) != "softmax":
        raise UnsupportedModelError(
            "Logits of two or more classes for each sample, of which one is right.",
            f"{type(model).__name__}, whose outputs of shape {tuple(output.shape)} are not",
            "a classifier; captum_vit.PredictionMap reads any output, token by token.",
        )
    if targets is None:
        raise TargetError("The class of every sample, for accuracy.", "none", "(inputs, targets)")
    labels = torch.as_tensor(plain_target(targets), device=output.device)
    labels = labels.expand(len(output)) if labels.dim() == 0 else labels
    if labels.shape != (len(output),) or not bool(((labels >= 0) & (labels < output.shape[1])).all()):
        raise TargetError(
            f"{len(output)} classes from 0 to {output.shape[1] - 1}, one for each sample.",
            f"{labels.tolist()}",
            "the labels of this very batch, numbered as the head numbers them.",
        )
    return labels
