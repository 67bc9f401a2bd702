"""Twin of VTranM. Numbers of equations and of Table 4 are those of the VTranM paper.

E (N, D) are the vectors that enter a sub-layer, E~ (N, D) the transformed vectors that it adds:

- attention: E = x_l, the residual stream, and E~^h = T_l W_V^h W_O^h with b_V included (rows of A^h sum to 1: tokens
  carry it) and b_O left out (it belongs to no token). Then E + sum_h A^h E~^h + b_O is the residual sum: eq. (6).
- feed-forward: E = the attention sub-layer's result, and E~ = the branch of the MLP before the residual sum: eq. (7).

A post-norm model normalises each residual sum. There E = T_l = the block's input for attention, and for feed-forward
E = the output of attention.output.LayerNorm.
"""

import torch
from torch import Tensor, nn

from tests.references.forward import Pass, Sample, Target, forward, value


def vtranm(
    model: nn.Module,
    sample: Sample,
    target: Target,
    aggregate: bool = True,
    length: bool = True,
    direction: bool = True,
    feed_forward: bool = True,
    score: str = "prob",
) -> Tensor:  # (N,)
    """CLS row of C^{n_L} = U^{n_L} ... U^1 C^0 (eq. 20), attention and feed-forward in turn.

    The rows of Table 4, from the text above it:

    - "Baseline, which merely applies Equation 8 to the input without aggregation": `aggregate=False`, O = I and T = A.
      "To the input" is read as the first block, the one whose columns are the input's own tokens; nothing else is
      said. Lengths, directions and feed-forward maps do not occur in eq. (8), so their switches have no effect.
    - "+ AF, which initializes the contribution map as an identity matrix [...] where relative lengths and NECC are
      discarded": `length=False, direction=False, feed_forward=False`. This is GenAtt, with the gradient of p(c).
    - "+ L": `direction=False`. Without NECC a feed-forward map is I + diag(ratio).
    - "+ NECC": all on, VTranM itself.

    `length=False` sets the ratios to 1 and C^0 to the identity; `direction=False` sets NECC to 1.
    """
    p = forward(model, sample)
    n = len(p.tokens)
    identity = torch.eye(n, dtype=torch.float64)
    gradients = torch.autograd.grad(value(p, target, score), [b.a for b in p.blocks])
    if not aggregate:
        a, ones = p.blocks[0].a.detach(), torch.ones(p.net.heads, n, dtype=torch.float64)
        return attention_update(a, gradients[0], ones)[0]

    contribution = identity.clone()
    if length:  # eq. (18)
        for j in range(n):
            contribution[j, j] = p.blocks[0].x[j].detach().norm()
    attention_weights, ffn_weights = transformation_weights(p, length, direction)
    for l, block in enumerate(p.blocks):
        contribution = attention_update(block.a.detach(), gradients[l], attention_weights[l]) @ contribution  # eq. (19)
        if feed_forward:
            contribution = (identity + torch.diag(ffn_weights[l])) @ contribution  # eqs. (16), (17)
    return contribution[0]


def attention_update(a: Tensor, gradient: Tensor, weights: Tensor) -> Tensor:  # (N, N)
    """Eqs. (14), (15): U = I + E_h[(dp/dA^h)^+ * (A^h W^h)], a and gradient (H, N, N), W^h = diag(weights[h])."""
    heads, n, _ = a.shape
    u = torch.eye(n, dtype=torch.float64)
    for h in range(heads):
        for j in range(n):  # W scales columns
            u[:, j] += gradient[h, :, j].clamp(min=0) * a[h, :, j] * weights[h, j] / heads
    return u


def transformation_weights(
    p: Pass, length: bool = True, direction: bool = True
) -> tuple[list[Tensor], list[Tensor]]:  # per block: (H, N) for attention, (N,) for feed-forward
    """Diagonals of W for every sub-layer of the pass."""
    attention, feed_forward = [], []
    for block in p.blocks:
        heads = [weights_of(block.x, e, p.real, length, direction) for e in block.transformed]
        attention.append(torch.stack(heads))
        feed_forward.append(weights_of(block.mid, block.ffn, p.real, length, direction))
    return attention, feed_forward


def weights_of(e: Tensor, e_tilde: Tensor, real: Tensor, length: bool, direction: bool) -> Tensor:  # (N,)
    """Eq. (13): ||E~_j|| / ||E_j|| * NECC(j), and 0 for padding."""
    e, e_tilde = e.detach(), e_tilde.detach()
    weights = torch.zeros(len(e), dtype=torch.float64)
    correlation = necc(e, e_tilde, real)
    for j in real.nonzero().flatten().tolist():
        weights[j] = 1.0
        if length:
            weights[j] *= e_tilde[j].norm() / e[j].norm()
        if direction:
            weights[j] *= correlation[j]
    return weights


def necc(e: Tensor, e_tilde: Tensor, real: Tensor) -> Tensor:  # (N,)
    """Eq. (12): exp cos(E_i, E~_i) / sum_k exp cos(E_k, E~_k), over the whole sequence, CLS included, padding not."""
    exponentials = torch.zeros(len(e), dtype=torch.float64)
    for k in real.nonzero().flatten().tolist():
        exponentials[k] = ((e[k] @ e_tilde[k]) / (e[k].norm() * e_tilde[k].norm())).exp()
    return exponentials / exponentials.sum()


def tokentm(model: nn.Module, sample: Sample, target: Target) -> Tensor:  # (N,)
    """The third-party variant: heads are averaged before they meet, and streams are compared after residual sums.

    One W for all heads, from the block's input and the stream after attention; for feed-forward from that stream and
    the block's output. The gradient is the logit's. Of a post-norm block, streams are those behind its norms.
    """
    p = forward(model, sample)
    n = len(p.tokens)
    identity = torch.eye(n, dtype=torch.float64)
    gradients = torch.autograd.grad(value(p, target), [b.a for b in p.blocks])
    contribution = torch.diag(torch.stack([p.blocks[0].x[j].detach().norm() for j in range(n)]))
    for block, gradient in zip(p.blocks, gradients, strict=True):
        attention, evidence = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
        for h in range(p.net.heads):
            attention += block.a[h].detach() / p.net.heads
            evidence += gradient[h].clamp(min=0) / p.net.heads
        w_attention = torch.diag(weights_of(block.x, block.mid, p.real, True, True))
        w_feed_forward = torch.diag(weights_of(block.mid, block.out, p.real, True, True))
        contribution = (identity + (attention @ w_attention) * evidence) @ contribution
        contribution = (identity + w_feed_forward) @ contribution
    return contribution[0]
