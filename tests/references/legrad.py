"""The twin of LeGrad: one block at a time, by autograd, on the forward written by hand."""

import torch
from torch import Tensor, nn

from tests.references.attention_gradient import real_tokens
from tests.references.forward import Sample, block, forward, readout


def legrad(model: nn.Module, sample: Sample, target: int, read: str = "head", layers: tuple[int, ...] = ()) -> Tensor:
    """Bousselham et al.: sum_l 1/(H N) sum_hi (d s_l / d A^{l,h}_ij)^+, s_l the head's logit of CLS, or of the mean."""
    p = forward(model, sample)
    real, total = real_tokens(p), torch.zeros(len(p.tokens), dtype=torch.float64)
    for l in layers or range(len(p.blocks)):
        alone = block(p.net, l, p.blocks[l].x.detach(), p.real)
        token = alone.out[0] if read == "head" else sum(alone.out[i] for i in real) / len(real)
        _, logits = readout(p.net, token)
        (gradient,) = torch.autograd.grad(logits[target], alone.a)
        for h in range(len(gradient)):
            for i in real:
                total += gradient[h, i].clamp(min=0) / (len(gradient) * len(real))
    return total * p.real
