"""Twin of TokenAblation: one token at a time is cut out of the sequence, and the rest goes through the weights.

F(x) - F(x without token i), each by a forward pass of its own. CLS cannot be cut out, since the head reads its row:
of an image it scores zero, of a text no query attends to it, its own included.
"""

import torch
from torch import Tensor, nn

from tests.references.forward import PREFIX, Sample, Target, embed, forward, read, run, value


def token_ablation(model: nn.Module, sample: Sample, target: Target, score: str = "prob") -> Tensor:  # (N,)
    x, real = embed(model, sample)
    net = read(model)
    whole = value(run(net, x, real), target, score)
    relevance = torch.zeros(len(x), dtype=torch.float64)
    for i in range(len(x)):
        if not real[i]:
            continue
        if i >= PREFIX:
            others = [j for j in range(len(x)) if j != i]
            left = run(net, x[others], real[others])
        elif isinstance(sample, tuple):
            left = forward(model, sample, hide={layer: [i] for layer in range(len(net.blocks))})
        else:
            continue
        relevance[i] = (whole - value(left, target, score)).item()
    return relevance
