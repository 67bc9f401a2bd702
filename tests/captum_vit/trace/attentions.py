"""One small vision transformer, and the same attention written in many ways."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

B, N, H, D = 3, 17, 2, 12  # samples, tokens, heads, channels
d = D // H

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values (B, N, H, d), queries scaled, give contexts (B, N, H, d)."""


class WrittenAttention(nn.Module):
    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.qkv, self.proj, self.attend = nn.Linear(D, 3 * D), nn.Linear(D, D), attend

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, H, d)).unbind(2)
        return self.proj(self.attend(q * d**-0.5, k, v).flatten(2))


class WrittenBlock(nn.Module):
    def __init__(self, attn: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attn = nn.LayerNorm(D), nn.LayerNorm(D), attn
        self.mlp = nn.Sequential(nn.Linear(D, 20), nn.GELU(), nn.Linear(20, D))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class WrittenViT(nn.Module):
    """A CLS token and 16 patches, two blocks."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Conv2d(3, D, 8, 8), nn.LayerNorm(D), nn.Linear(D, 5)
        self.blocks = nn.ModuleList(WrittenBlock(make()) for _ in range(2))
        self.cls = nn.Parameter(torch.zeros(1, 1, D))

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images).flatten(2).mT
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def vit(attend: Attend | None = None, make: Callable[[], nn.Module] | None = None) -> nn.Module:
    """With the same weights whatever the attention is, in double precision."""
    model = WrittenViT(make or (lambda: WrittenAttention(attend or plain))).eval().double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).double() * 0.4)
    return model


def images(batch: int = B) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return (torch.softmax(q @ k.mT, -1) @ v).transpose(1, 2)


FORMS: dict[str, Attend] = {}
"""Each of them is ``plain``, written in another way."""


def form(attend: Attend) -> Attend:
    FORMS[attend.__name__] = attend
    return attend


@form
def einsum_in_usual_letters(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    A = torch.einsum("b h i d, b h j d -> b h i j", q, k).softmax(dim=-1)
    return torch.einsum("bhij,bhjd->bhid", A, v).transpose(1, 2)


@form
def einsum_of_tokens_before_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    A = F.softmax(torch.einsum("bqhc,bkhc->bhqk", q, k), -1)
    return torch.einsum("bkhc,bhqk->bqhc", v, A)


@form
def einsum_of_heads_behind_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    A = F.softmax(torch.einsum("xazf,xezf->xaze", q, k), dim=3)
    return torch.einsum("xaze,xezf->xazf", [A, v])


@form
def einsum_with_keys_before_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    A = torch.einsum("...qc,...kc->...kq", q, k).softmax(-2)
    return torch.einsum("...kc,...kq->...qc", v, A).transpose(1, 2)


@form
def einsum_in_groups_of_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q = q.unflatten(2, (H, 1))
    A = torch.einsum("bqghc,bkgc->bghqk", q, k).softmax(-1)
    return torch.einsum("bghqk,bkgc->bqghc", A, v).flatten(2, 3)


@form
def a_sink_that_draws_nothing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    A = torch.cat([q @ k.mT, q.new_full((len(q), H, N, 1), -torch.inf)], -1).softmax(-1)
    return (A[..., :-1] @ v).transpose(1, 2)


@form
def heads_behind_one_another(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2).reshape(-1, N, d) for x in (q, k, v))
    A = torch.bmm(q, k.transpose(1, 2)).softmax(-1)
    return torch.bmm(A, v).view(-1, H, N, d).transpose(1, 2)


@form
def heads_before_samples(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.permute(2, 0, 1, 3) for x in (q, k, v))
    return (F.softmax(q @ k.mT, dim=-1) @ v).permute(1, 2, 0, 3)


@form
def values_on_the_left(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    A = nn.Softmax(-1)(q @ k.mT)
    return torch.matmul(v.transpose(2, 3), A.transpose(2, 3)).permute(0, 3, 1, 2)


@form
def scores_added_to_a_bias(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2).reshape(-1, N, d) for x in (q, k, v))
    A = torch.baddbmm(q.new_zeros(1, 1, 1).expand(len(q), N, N), q, k.mT).softmax(-1)
    return A.view(-1, H, N, N).matmul(v.view(-1, H, N, d)).transpose(1, 2)


@form
def shapes_that_change_on_the_way(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    A = F.dropout(torch.softmax(q @ k.mT, -1).to(q.dtype), 0.1, training=False)
    A = A.contiguous().view(-1, N, N).clone().unflatten(0, (-1, H))[:, :, None].squeeze(2)
    return (A @ v).transpose(1, 2)


@form
def masks_that_hide_nothing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    nothing = torch.zeros(N, N, dtype=torch.bool)
    A = torch.softmax(q @ k.mT, -1) * q.new_ones(1, H, 1, 1)
    A = torch.where(nothing, 0.0, A.masked_fill(nothing, 0.0)).nan_to_num()
    A.masked_fill_(nothing, 0.0)
    return (A @ v).transpose(1, 2)


@form
def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2)


@form
def kernel_on_heads_behind_one_another(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2).reshape(-1, N, d) for x in (q, k, v))
    seen = torch.ones(N, N, dtype=torch.bool)
    return F.scaled_dot_product_attention(q, k, v, seen, scale=1.0).view(-1, H, N, d).transpose(1, 2)


@form
def kernel_with_a_group_for_each_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0, enable_gqa=True).transpose(1, 2)
