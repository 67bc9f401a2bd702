"""Both reference models once more, by hand: weights read one by one, heads in a loop, every intermediate kept.

`forward(model, sample)` is the whole model and `run(net, x_l, real, start=l)` the sub-network f_l that begins at the
input of block l. N tokens, D channels, H heads of d = D / H channels, C classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification

Sample = Tensor | tuple[Tensor, Tensor]  # an image (3, H, W), or input_ids (N,) and attention_mask (N,)
Target = int | Tensor | Callable[["Pass"], Tensor]  # a class, a concept vector (D,), or any scalar of the pass
PREFIX = 1  # both reference models have one token, CLS, in front of the patches or words
HIDDEN = -1e9  # the score of a key that may not be attended to: its probability is exactly zero


class Linear(NamedTuple):
    """y = W x + b."""

    weight: Tensor  # (out, in)
    bias: Tensor  # (out,), or (N, out) where every token has its own

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class Norm(NamedTuple):
    """y = (x - mean) / sqrt(var + eps) * gamma + beta, over channels."""

    weight: Tensor  # (D,)
    bias: Tensor  # (D,) or (N, D)
    eps: float

    def deviation(self, x: Tensor) -> Tensor:
        return ((x - x.mean(-1, keepdim=True)).pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def __call__(self, x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / self.deviation(x) * self.weight + self.bias


@dataclass
class BlockWeights:
    query: Linear
    key: Linear
    value: Linear
    project: Linear  # the output projection W_O, b_O, LayerScale multiplied in
    norm1: Norm
    fc1: Linear
    fc2: Linear  # LayerScale multiplied in
    norm2: Norm


@dataclass
class Network:
    blocks: list[BlockWeights]
    heads: int
    post_norm: bool
    norm: Norm | None  # the ViT's final LayerNorm
    pooler: Linear | None  # BERT's dense layer before tanh
    classifier: Linear


@dataclass
class Block:
    """All that one block computed."""

    x: Tensor  # (N, D) its input x_l
    t: Tensor  # (N, D) what attention reads: norm1's output T_l, or x_l itself in a post-norm block
    q: Tensor  # (H, N, d)
    k: Tensor  # (H, N, d)
    v: Tensor  # (H, N, d)
    a: Tensor  # (H, N, N) attention probabilities; rows are queries
    z: Tensor  # (H, N, d) contexts: A^h V^h
    transformed: Tensor  # (H, N, D) E~^h = V^h W_O^h, so that the attention branch is sum_h A^h E~^h + b_O
    attended: Tensor  # (N, D) the attention branch, before the residual sum
    mid: Tensor  # (N, D) pre-norm: x + attended; post-norm: norm1(x + attended)
    fed: Tensor  # (N, D) what the MLP reads: norm2(mid), or mid itself in a post-norm block
    pre: Tensor  # (N, M) before the activation
    ffn: Tensor  # (N, D) the MLP branch, before the residual sum
    out: Tensor  # (N, D) pre-norm: mid + ffn; post-norm: norm2(mid + ffn)


@dataclass
class Pass:
    """One pass from the input of block `start` to the logits."""

    net: Network
    start: int
    real: Tensor  # (N,) bool, False at padding
    blocks: list[Block]  # of the blocks start, ..., L - 1
    tokens: Tensor  # (N, D) output of the last block
    embedding: Tensor  # (D,) what the classifier reads for CLS
    logits: Tensor  # (C,)


def gelu(z: Tensor) -> Tensor:
    return z * 0.5 * (1 + torch.erf(z / math.sqrt(2)))


def softmax(s: Tensor) -> Tensor:
    e = (s - s.max(-1, keepdim=True).values).exp()
    return e / e.sum(-1, keepdim=True)


# ---------------------------------------------------------------------------------------------- reading the weights


def read(model: nn.Module) -> Network:
    return read_bert(model) if isinstance(model, BertForSequenceClassification) else read_vit(model)


def read_vit(model: nn.Module) -> Network:
    assert model.global_pool == "token" and model.num_prefix_tokens == PREFIX
    blocks = []
    for b in model.blocks:
        query, key, value = (
            Linear(w, c) for w, c in zip(b.attn.qkv.weight.chunk(3), b.attn.qkv.bias.chunk(3), strict=True)
        )
        project, fc2 = _scaled(b.attn.proj, b.ls1), _scaled(b.mlp.fc2, b.ls2)
        blocks.append(BlockWeights(query, key, value, project, _norm(b.norm1), _linear(b.mlp.fc1), fc2, _norm(b.norm2)))
    return Network(blocks, model.blocks[0].attn.num_heads, False, _norm(model.norm), None, _linear(model.head))


def read_bert(model: nn.Module) -> Network:
    assert model.config.hidden_act == "gelu"
    blocks = []
    for b in model.bert.encoder.layer:
        attention, fc1, fc2 = b.attention.self, b.intermediate.dense, b.output.dense
        query, key, value = _linear(attention.query), _linear(attention.key), _linear(attention.value)
        project, norm1, norm2 = b.attention.output.dense, b.attention.output.LayerNorm, b.output.LayerNorm
        blocks.append(
            BlockWeights(query, key, value, _linear(project), _norm(norm1), _linear(fc1), _linear(fc2), _norm(norm2))
        )
    pooler, classifier = _linear(model.bert.pooler.dense), _linear(model.classifier)
    return Network(blocks, model.config.num_attention_heads, True, None, pooler, classifier)


def _linear(m: nn.Linear) -> Linear:
    return Linear(m.weight, m.bias)


def _norm(m: nn.LayerNorm) -> Norm:
    return Norm(m.weight, m.bias, m.eps)


def _scaled(m: nn.Linear, scale: nn.Module) -> Linear:
    gamma = getattr(scale, "gamma", None)
    return _linear(m) if gamma is None else Linear(gamma[:, None] * m.weight, gamma * m.bias)


# -------------------------------------------------------------------------------------------------------- one pass


def embed(model: nn.Module, sample: Sample) -> tuple[Tensor, Tensor]:
    """The tokens x_0 (N, D) that enter block 0, position included, and which of them are not padding (N,)."""
    if isinstance(sample, Tensor):
        x = embed_vit(model, sample)
        return x, torch.ones(len(x), dtype=torch.bool)
    input_ids, attention_mask = sample
    return embed_bert(model, input_ids), attention_mask.bool()


def embed_vit(model: nn.Module, image: Tensor) -> Tensor:
    conv = model.patch_embed.proj
    p = conv.kernel_size[0]
    filters = Linear(conv.weight.flatten(1), conv.bias)  # (D, 3 p p)
    tokens = [model.cls_token[0, 0]]
    for top in range(0, image.shape[1], p):
        for left in range(0, image.shape[2], p):
            tokens.append(filters(image[:, top : top + p, left : left + p].flatten()))
    return torch.stack(tokens) + model.pos_embed[0]


def embed_bert(model: nn.Module, input_ids: Tensor) -> Tensor:
    e = model.bert.embeddings
    tokens = []
    for position, word in enumerate(input_ids.tolist()):
        tokens.append(
            e.word_embeddings.weight[word] + e.position_embeddings.weight[position] + e.token_type_embeddings.weight[0]
        )
    return _norm(e.LayerNorm)(torch.stack(tokens))


def block(net: Network, l: int, x: Tensor, keys: Tensor, t: Tensor | None = None) -> Block:
    """Block l on x (N, D), attending to `keys` (N,) only. `t` replaces norm1's output; the residual stays x."""
    w, d = net.blocks[l], x.shape[1] // net.heads
    if net.post_norm:
        assert t is None, "a post-norm block has no norm before attention"
        t = x
    elif t is None:
        t = w.norm1(x)
    rows = [slice(h * d, (h + 1) * d) for h in range(net.heads)]
    q = torch.stack([t @ w.query.weight[r].T + w.query.bias[..., r] for r in rows])
    k = torch.stack([t @ w.key.weight[r].T + w.key.bias[..., r] for r in rows])
    v = torch.stack([t @ w.value.weight[r].T + w.value.bias[..., r] for r in rows])
    scores = [q[h] @ k[h].T / math.sqrt(d) for h in range(net.heads)]
    a = torch.stack([softmax(torch.where(keys, s, torch.full_like(s, HIDDEN))) for s in scores])
    z = torch.stack([a[h] @ v[h] for h in range(net.heads)])
    transformed = torch.stack([v[h] @ w.project.weight[:, r].T for h, r in enumerate(rows)])
    attended = sum(z[h] @ w.project.weight[:, r].T for h, r in enumerate(rows)) + w.project.bias

    mid = w.norm1(x + attended) if net.post_norm else x + attended
    fed = mid if net.post_norm else w.norm2(mid)
    pre = w.fc1(fed)
    ffn = w.fc2(gelu(pre))
    out = w.norm2(mid + ffn) if net.post_norm else mid + ffn
    return Block(x, t, q, k, v, a, z, transformed, attended, mid, fed, pre, ffn, out)


def readout(net: Network, token: Tensor) -> tuple[Tensor, Tensor]:
    """nu: what the model does after its blocks, on one token (D,) -> what its classifier reads (D,), logits (C,)."""
    embedding = token if net.norm is None else net.norm(token)
    if net.pooler is not None:
        embedding = torch.tanh(net.pooler(embedding))
    return embedding, net.classifier(embedding)


def run(
    net: Network,
    x: Tensor,
    real: Tensor,
    start: int = 0,
    t: Tensor | None = None,
    hide: dict[int, list[int]] | None = None,
) -> Pass:
    """f_start on x (N, D). `t` replaces norm1's output in block `start`; `hide[l]` are keys hidden in block l."""
    blocks, x_l = [], x
    for l in range(start, len(net.blocks)):
        keys = real.clone()
        keys[(hide or {}).get(l, [])] = False
        blocks.append(block(net, l, x_l, keys, t if l == start else None))
        x_l = blocks[-1].out
    return Pass(net, start, real, blocks, x_l, *readout(net, x_l[0]))


def forward(model: nn.Module, sample: Sample, hide: dict[int, list[int]] | None = None) -> Pass:
    """The whole model on one sample; x_0 is a leaf, so gradients of every intermediate can be asked for."""
    x, real = embed(model, sample)
    return run(read(model), x.detach().requires_grad_(), real, hide=hide)


def vit_forward(model: nn.Module, image: Tensor) -> Pass:
    return forward(model, image)


def bert_forward(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Pass:
    return forward(model, (input_ids, attention_mask))


def value(p: Pass, target: Target, score: str = "logit") -> Tensor:
    """The scalar to explain: a class's logit or probability, <l(X), l_c> for a concept vector, or target(pass)."""
    if isinstance(target, int):
        return p.logits[target] if score == "logit" else softmax(p.logits)[target]
    return p.embedding @ target if isinstance(target, Tensor) else target(p)
