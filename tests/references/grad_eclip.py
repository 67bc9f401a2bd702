"""The twin of Grad-ECLIP: heads side by side, token by token, on the forward written by hand."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.references.attention_gradient import real_tokens
from tests.references.forward import PREFIX, Sample, forward, value


def grad_eclip(
    model: nn.Module,
    sample: Sample,
    target: int,
    layers: tuple[int, ...] = (-1,),
    cosine: bool = True,
    signed: bool = False,
) -> Tensor:  # (N,)
    """Zhao et al.: (sum_l lambda_i dF/do_CLS . v_i)^+, lambda the cosine of q_CLS and k_i, from 0 to 1."""
    p = forward(model, sample)
    gradients = torch.autograd.grad(value(p, target), [p.blocks[l].z for l in layers])
    patches = [i for i in real_tokens(p) if p.net.post_norm or i >= PREFIX]  # a text has no prefix
    total = torch.zeros(len(p.tokens), dtype=torch.float64)
    for l, gradient in zip(layers, gradients, strict=True):
        b = p.blocks[l]
        g, q = torch.cat(list(gradient[:, 0])), torch.cat(list(b.q[:, 0]))
        cosines = {i: F.cosine_similarity(q, torch.cat(list(b.k[:, i])), dim=0) for i in real_tokens(p)}
        least, most = (of(cosines[i] for i in patches) for of in (min, max))
        for i in real_tokens(p):
            weight = (cosines[i] - least) / (most - least) if cosine else 1.0
            total[i] += (weight * (g @ torch.cat(list(b.v[:, i])))).detach()
    return total if signed else total.clamp(min=0)
