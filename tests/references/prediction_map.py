"""Twins of PredictionMap and PredicAtt. Numbers of equations are those of "From Attention to Prediction Maps".

nu is all that the model does after its blocks, the final norm included (the paper's y = nu(x_CLS^(L)) leaves no other
choice); for BERT that is pooler, tanh and classifier. Padding gets 0.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tests.references.forward import PREFIX, Pass, Sample, forward, readout, softmax


def prediction_map(
    model: nn.Module, sample: Sample, target: int, layer: int = -1, score: str = "prob"
) -> Tensor:  # (N,)
    """Psi^(l)(c): the target's column of the prediction matrix at the output of block `layer`."""
    return prediction_matrix(forward(model, sample), layer, score)[:, target]


def prediction_matrix(p: Pass, layer: int = -1, score: str = "prob") -> Tensor:  # (N, C)
    """Eq. (2): Psi^(l) = [nu(x_1) nu(x_2) ... ]^T, one token at a time, as probabilities or as logits."""
    rows = []
    for i, token in enumerate(p.blocks[layer].out.detach()):
        logits = readout(p.net, token)[1].detach()
        row = softmax(logits) if score == "prob" else logits
        rows.append(row if p.real[i] else torch.zeros_like(row))
    return torch.stack(rows)


def predic_att(
    model: nn.Module,
    sample: Sample,
    target: int,
    layer: int = -1,
    score: str = "prob",
    similarity: str = "dot",
    attention: str = "chosen",
    prediction: bool = True,
    attention_layers: Iterable[int] | None = None,
    temperature: float = 1.0,
) -> Tensor:  # (N,)
    """Eq. (5): A~_CLS(c) * Psi^(i)(c). Attention comes from all blocks, Psi from block `layer` alone.

    Table 4: line (i) is `attention="mean", prediction=False`, line (ii) `prediction=False`; line (iii) is
    `prediction_map`.
    """
    p = forward(model, sample)
    psi = prediction_matrix(p, layer, score)[:, target]
    layers = range(len(p.blocks)) if attention_layers is None else attention_layers
    alpha = head_weights(p, psi, similarity, layers, temperature)
    combined = torch.zeros(len(psi), dtype=torch.float64)
    for l in layers:  # eq. (3)
        for h in range(p.net.heads):
            weight = alpha[l, h] if attention == "chosen" else 1 / (len(layers) * p.net.heads)
            combined += weight * p.blocks[l].a[h, 0].detach()
    return combined * psi if prediction else combined


def head_weights(
    p: Pass,
    psi: Tensor,
    similarity: str = "dot",
    layers: Iterable[int] | None = None,
    temperature: float = 1.0,
) -> Tensor:  # (L, H)
    """One softmax over all heads of all blocks together; 0 in a block that takes no part."""
    alpha = torch.full((len(p.blocks), p.net.heads), -math.inf, dtype=torch.float64)
    for l in range(len(p.blocks)) if layers is None else layers:
        alpha[l] = similarities(p, psi, similarity)[l] / temperature
    return softmax(alpha.flatten()).reshape(alpha.shape)


def similarities(p: Pass, psi: Tensor, similarity: str = "dot") -> Tensor:  # (L, H)
    """Eq. (4), or eq. (6) for "cosine".

    Both vectors run over the tokens behind the prefix, padding left out; CLS's attention to itself is cut off, and the
    rest is not scaled up again.
    """
    kept = p.real.clone()
    kept[:PREFIX] = False
    alpha = torch.zeros(len(p.blocks), p.net.heads, dtype=torch.float64)
    for l, block in enumerate(p.blocks):
        for h in range(p.net.heads):
            a = block.a[h, 0].detach()[kept]
            alpha[l, h] = (a * psi[kept]).sum()
            if similarity == "cosine":
                alpha[l, h] /= a.norm() * psi[kept].norm()
    return alpha


class Reading(NamedTuple):
    accuracy: float
    confidence: float
    entropy: float


def per_layer(model: nn.Module, sample: Sample, label: int) -> list[tuple[Reading, Reading]]:
    """Appendix A.6 for one sample: for every block the reading of CLS, and the mean reading of its patches."""
    p = forward(model, sample)
    found = []
    for l in range(len(p.blocks)):
        readings = [reading(logits, label) for logits in prediction_matrix(p, l, "logit")]
        patches = [readings[i] for i in p.real.nonzero().flatten().tolist() if i >= PREFIX]
        mean = Reading(*(sum(column) / len(patches) for column in zip(*patches, strict=True)))
        found.append((readings[0], mean))
    return found


def reading(logits: Tensor, label: int) -> Reading:
    """Right or wrong; "the difference between the logits of the most probable class and the second"; entropy."""
    first, second = sorted(logits.tolist(), reverse=True)[:2]
    probabilities = softmax(logits).tolist()
    entropy = -sum(q * math.log(q) for q in probabilities if q > 0)
    return Reading(float(logits.tolist().index(first) == label), first - second, entropy)
