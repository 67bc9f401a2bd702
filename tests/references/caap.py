"""The twin of CAAP: one token at a time, block by block, on the forward written by hand."""

import torch
from torch import Tensor, nn

from tests.references.attention_gradient import real_tokens
from tests.references.forward import PREFIX, Pass, Sample, block, embed, forward, read, readout, run


def caap(model: nn.Module, sample: Sample, target: int, layers: tuple[int, ...] = (0, 1, 2)) -> Tensor:  # (N,)
    """F(neutral | x^l_i for the blocks l of `layers`) - F(neutral); grey images, and the mean vector of a text."""
    source = forward(model, sample)
    neutral = _neutral(model, sample, source)
    total = torch.zeros(len(source.tokens), dtype=torch.float64)
    for i in real_tokens(source):
        if not source.net.post_norm and i < PREFIX:
            continue
        x = neutral.blocks[0].x
        for l in range(len(source.blocks)):
            if l in layers:
                x = x.clone()
                x[i] = source.blocks[l].x[i]
            x = block(source.net, l, x, source.real).out
        _, logits = readout(source.net, x[0])
        total[i] = (logits[target] - neutral.logits[target]).detach()
    return total


def _neutral(model: nn.Module, sample: Sample, source: Pass) -> Pass:
    if isinstance(sample, Tensor):
        x, real = embed(model, torch.zeros_like(sample))
        return run(read(model), x, real)
    x, real = embed(model, sample)
    mean = sum(x[i] for i in real_tokens(source)) / len(real_tokens(source))
    return run(read(model), mean.expand_as(x), real)
