"""Twins of LRP, PartialLRP, TransAttr and ConservativeLRP.

Relevance goes back from layer to layer, entry by entry; R of a layer's output becomes R of its input:

- linear y_j = sum_i W_ji x_i + b_j: R_i = sum_j (x_i W_ji)^+ / sum_i' (x_i' W_ji')^+ R_j (alpha = 1, beta = 0).
- product of two matrices, z_ij = sum_k a_ik b_kj: a_ik and b_kj each get half of a_ik b_kj / z_ij R_ij.
- sum y = a + b: R_a = a / y R and R_b = b / y R, entry by entry; then R_a is multiplied by
  |sum R_a| / (|sum R_a| + |sum R_b|) * sum R / sum R_a, and R_b likewise, sums over all entries of the sample.
- norm, softmax, activation: R as it is.

The logit of the target starts with R = 1. A model with LayerScale has its scale in its weights here, which is the same
as long as it is positive.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.references.forward import (
    PREFIX,
    Block,
    BlockWeights,
    Linear,
    Network,
    Norm,
    Pass,
    Sample,
    embed_vit,
    forward,
    gelu,
    readout,
    value,
)

STABILISER = 1e-12


@dataclass
class Relevance:
    """What arrived at the input of a block, and at its attention."""

    x: Tensor  # (N, D)
    a: Tensor  # (H, N, N)


def lrp(model: nn.Module, sample: Sample, target: int, start: int = 0) -> Tensor:  # (N,)
    """Relevance of the tokens at the input of block `start`, summed over channels."""
    return propagated(forward(model, sample), target)[start].x.sum(-1)


def lrp_of_pixels(model: nn.Module, image: Tensor, target: int) -> Tensor:  # (H, W)
    """Relevance of a ViT's pixels, summed over colours.

    Tokens are sums of what stands in the image (or of CLS) and of a position. The embedding of a patch shares by
    x W - l W^+ - h W^-, with l and h the least and the largest entry of the image.
    """
    positions = model.pos_embed[0].detach()
    R_tokens, _ = added(embed_vit(model, image).detach() - positions, positions, lrp_of_channels(model, image, target))
    conv, low, high = model.patch_embed.proj, image.min(), image.max()
    weight, p, total = conv.weight.detach(), conv.kernel_size[0], torch.zeros_like(image)
    rows = iter(R_tokens[PREFIX:])
    for top in range(0, image.shape[1], p):
        for left in range(0, image.shape[2], p):
            patch, R = image[:, top : top + p, left : left + p], next(rows)
            for j, w in enumerate(weight):
                parts = patch * w - low * w.clamp(min=0) - high * w.clamp(max=0)
                total[:, top : top + p, left : left + p] += parts * divided(R[j], parts.sum())
    return total.sum(0)


def lrp_of_channels(model: nn.Module, sample: Sample, target: int) -> Tensor:  # (N, D)
    return propagated(forward(model, sample), target)[0].x


def partial_lrp(model: nn.Module, sample: Sample, target: int, layer: int = -1) -> Tensor:  # (N,)
    """CLS row of the positive relevance of one block's attention, 1/H sum_h (R^{A,h})^+."""
    return mean_positive(propagated(forward(model, sample), target)[layer].a)[0]


def trans_attr(model: nn.Module, sample: Sample, target: int, start: int = 0) -> Tensor:  # (N,)
    """CLS row of the product of I + 1/H sum_h (dF/dA^h * R^{A,h})^+ over the blocks from `start` on."""
    p = forward(model, sample)
    relevance = propagated(p, target)
    gradients = torch.autograd.grad(value(p, target), [b.a for b in p.blocks])
    rollout = torch.eye(len(p.tokens), dtype=torch.float64)
    for l in range(start, len(p.blocks)):
        rollout = rollout + mean_positive(gradients[l] * relevance[l].a) @ rollout
    return rollout[0]


def mean_positive(a: Tensor) -> Tensor:  # (H, N, N) -> (N, N)
    return sum(a[h].clamp(min=0) for h in range(len(a))) / len(a)


# ----------------------------------------------------------------------------------------------- from layer to layer


def propagated(p: Pass, target: int) -> list[Relevance]:
    """Relevance in every block of a pass."""
    with torch.no_grad():
        R, found = through_readout(p, target), []
        for w, block in zip(reversed(p.net.blocks), reversed(p.blocks), strict=True):
            R_x, R_a = through_block(p.net, w, block, R)
            found.append(Relevance(R_x, R_a))
            R = R_x
    return found[::-1]


def through_readout(p: Pass, target: int) -> Tensor:  # (N, D)
    """The classifier, BERT's pooler before it, and the final norm of a ViT; CLS alone is read."""
    R = torch.zeros_like(p.logits)
    R[target] = 1
    R = linear(p.net.classifier, p.embedding, R)
    if p.net.pooler is not None:
        R = linear(p.net.pooler, p.tokens[0], R)
    rows = torch.zeros_like(p.tokens)
    rows[0] = R
    return rows


def through_block(net: Network, w: BlockWeights, block: Block, R: Tensor) -> tuple[Tensor, Tensor]:
    R_mid, R_ffn = added(block.mid, block.ffn, R)
    R_hidden = each_row(w.fc2, gelu(block.pre), R_ffn)
    R_mid = R_mid + each_row(w.fc1, block.fed, R_hidden)
    R_x, R_attended = added(block.x, block.attended, R_mid)
    R_t, R_a = through_attention(w, block, R_attended)
    return R_x + R_t, R_a


def through_attention(w: BlockWeights, block: Block, R: Tensor) -> tuple[Tensor, Tensor]:
    heads, n, d = block.v.shape
    R_z = each_row(w.project, torch.cat(list(block.z), -1), R)  # (N, D), the heads side by side
    R_q, R_k, R_v = (torch.zeros(n, heads * d, dtype=R.dtype) for _ in range(3))
    R_a = []
    for h in range(heads):
        rows = slice(h * d, (h + 1) * d)
        of_a, R_v[:, rows] = multiplied(block.a[h], block.v[h], R_z[:, rows])
        R_q[:, rows], of_k = multiplied(block.q[h], block.k[h].T, of_a)
        R_k[:, rows] = of_k.T
        R_a.append(of_a)
    parts = ((w.query, R_q), (w.key, R_k), (w.value, R_v))
    return sum(each_row(m, block.t, R_part) for m, R_part in parts), torch.stack(R_a)


def each_row(m: Linear, x: Tensor, R: Tensor) -> Tensor:  # x (N, in), R (N, out) -> (N, in)
    return torch.stack([linear(m, x[i], R[i]) for i in range(len(x))])


def linear(m: Linear, x: Tensor, R: Tensor) -> Tensor:  # x (in,), R (out,) -> (in,)
    total = torch.zeros_like(x)
    for j in range(len(R)):
        positive = (x * m.weight[j]).clamp(min=0)
        total += positive * divided(R[j], positive.sum())
    return total


def multiplied(a: Tensor, b: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:  # a (n, k), b (k, m), R (n, m)
    R_a, R_b = torch.zeros_like(a), torch.zeros_like(b)
    for i in range(R.shape[0]):
        for j in range(R.shape[1]):
            parts = a[i] * b[:, j]
            share = parts * divided(R[i, j], parts.sum()) / 2
            R_a[i] += share
            R_b[:, j] += share
    return R_a, R_b


def added(a: Tensor, b: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    R_a, R_b = a * divided(R, a + b), b * divided(R, a + b)
    sum_a, sum_b = R_a.sum(), R_b.sum()
    both = sum_a.abs() + sum_b.abs()
    R_a = R_a * divided(divided(sum_a.abs(), both) * R.sum(), sum_a)
    R_b = R_b * divided(divided(sum_b.abs(), both) * R.sum(), sum_b)
    return R_a, R_b


def divided(R: Tensor, z: Tensor) -> Tensor:
    return torch.where(z == 0, torch.zeros_like(z), R / (z + STABILISER * z.sign()))


# ------------------------------------------------------------------------------------------------- conservative LRP


def conservative_lrp(model: nn.Module, sample: Sample, target: int, start: int = 0) -> Tensor:  # (N,)
    """Gradient x input of the network whose attention and norm deviations are numbers."""
    p = forward(model, sample)
    x = p.blocks[start].x.detach().requires_grad_()
    tokens = x
    for l in range(start, len(p.blocks)):
        tokens = held_block(p.net, p.net.blocks[l], p.blocks[l], tokens)
    net = p.net if p.net.norm is None else _without_norm(p.net)
    cls = tokens[0] if p.net.norm is None else held_norm(p.net.norm, p.tokens[0], tokens[0])
    gradient = torch.autograd.grad(readout(net, cls)[1][target], x)[0]
    return (x * gradient).sum(-1).detach()


def _without_norm(net: Network) -> Network:
    return Network(net.blocks, net.heads, net.post_norm, None, net.pooler, net.classifier)


def held_block(net: Network, w: BlockWeights, block: Block, x: Tensor) -> Tensor:  # (N, D)
    """A block on x, with the attention and the deviations that `block` had."""
    heads, _, d = block.v.shape
    t = x if net.post_norm else held_norm(w.norm1, block.x, x)
    v = w.value(t)
    z = [block.a[h].detach() @ v[:, h * d : (h + 1) * d] for h in range(heads)]
    mid = x + w.project(torch.cat(z, -1))
    if net.post_norm:
        mid = held_norm(w.norm1, block.x + block.attended, mid)
        out = mid + w.fc2(gelu(w.fc1(mid)))
        return held_norm(w.norm2, block.mid + block.ffn, out)
    return mid + w.fc2(gelu(w.fc1(held_norm(w.norm2, block.mid, mid))))


def held_norm(m: Norm, full: Tensor, x: Tensor) -> Tensor:
    """The norm of x by the deviation of `full`."""
    return (x - x.mean(-1, keepdim=True)) / m.deviation(full).detach() * m.weight + m.bias
