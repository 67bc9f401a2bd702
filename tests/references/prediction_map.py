"""Twins of PredictionMap and PredicAtt. Numbers of equations are those of "From Attention to Prediction Maps".

nu is all that the model does after its blocks, the final norm included (the paper's y = nu(x_CLS^(L)) leaves no other
choice); for BERT that is pooler, tanh and classifier. Padding gets 0.
"""

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
) -> Tensor:  # (N,)
    """Eq. (5): A~_CLS(c) * Psi^(i)(c). Attention comes from all blocks, Psi from block `layer` alone."""
    p = forward(model, sample)
    psi = prediction_matrix(p, layer, score)[:, target]
    alpha = head_weights(p, psi, similarity)
    combined = torch.zeros(len(psi), dtype=torch.float64)
    for l, block in enumerate(p.blocks):  # eq. (3)
        for h in range(p.net.heads):
            combined += alpha[l, h] * block.a[h, 0].detach()
    return combined * psi


def head_weights(p: Pass, psi: Tensor, similarity: str = "dot") -> Tensor:  # (L, H)
    """Eq. (4), or eq. (6) for "cosine", then one softmax over all heads of all blocks together.

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
    return softmax(alpha.flatten()).reshape(alpha.shape)
