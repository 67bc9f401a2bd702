"""Transformers of no known family, whose classes and attributes have names that tell nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models import redrawn

D, H, N, K = 24, 3, 10, 5


class Aa(nn.Module):
    """Attention with a norm of its own before it, written with a softmax."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.k1 = nn.LayerNorm(D) if norm else nn.Identity()
        self.k2 = nn.Linear(D, 3 * D, bias=False)
        self.k3 = nn.Softmax(-1)
        self.k4 = nn.Sequential(nn.Linear(D, D), nn.Dropout(0.1))

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.unflatten(-1, (H, -1)).transpose(1, 2) for t in self.k2(self.k1(x)).chunk(3, -1))

    def probs(self, q: Tensor, k: Tensor) -> Tensor:
        return self.k3(q @ k.mT * q.shape[-1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        return self.k4((self.probs(q, k) @ v).transpose(1, 2).flatten(2))


class TalkingHeads(Aa):
    def __init__(self) -> None:
        super().__init__()
        self.k5 = nn.Linear(H, H)

    def probs(self, q: Tensor, k: Tensor) -> Tensor:
        return self.k5(super().probs(q, k).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Differential(Aa):
    def probs(self, q: Tensor, k: Tensor) -> Tensor:
        return super().probs(q, k) - 0.3 * super().probs(q.flip(-1), k)


class Channels(Aa):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.mT for t in self.heads(x))
        return self.k4((self.probs(q, k) @ v).mT.transpose(1, 2).flatten(2))


class Windows(Aa):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unflatten(1, (2, -1)).flatten(0, 1)).unflatten(0, (-1, 2)).flatten(1, 2)


class Convolved(Aa):
    def __init__(self) -> None:
        super().__init__()
        self.k5 = nn.Conv1d(D, D, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.k5(self.k1(x).mT).mT


class Bare(Aa):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) @ torch.eye(D, dtype=x.dtype)


def feed_forward(norm: bool = True) -> nn.Module:
    norms = [nn.LayerNorm(D)] if norm else []
    return nn.Sequential(*norms, nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))


class Base(nn.Module):
    """Three blocks between an embedding and a head that reads the mean."""

    def __init__(self, kind: Callable[[], nn.Module] = Aa) -> None:
        super().__init__()
        self.e, self.p = nn.Linear(7, D), nn.Parameter(torch.zeros(1, N, D))
        self.m = nn.ModuleList(nn.ModuleList([kind(), feed_forward(kind is not NoNorm)]) for _ in range(3))
        self.h = nn.Linear(D, K)

    def forward(self, x: Tensor) -> Tensor:
        x = self.e(x) + self.p
        for a, f in self.m:
            x = self.step(x, a, f)
        return self.h(x.mean(1))

    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        x = a(x) + x
        return f(x) + x


class NoNorm(Aa):
    def __init__(self) -> None:
        super().__init__(norm=False)


class PostNorm(Base):
    """Norms that are functions."""

    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        x = self.norm(x + a(x))
        return self.norm(x + f(x))

    def norm(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred * (centred.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * self.h.weight[0] + self.h.weight[1]


class Parallel(Base):
    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        return x + a(x) + f(x)


class Whole(nn.Module):
    """A block that is a module, and returns more than its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.f = Aa(), feed_forward()

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        x = self.a(x) + x
        return self.f(x) + x, None


class Chunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.m = nn.ModuleList([nn.Identity(), Whole()])

    def forward(self, x: Tensor) -> Tensor:
        for m in self.m:
            y = m(x)
            x = y[0] if isinstance(y, tuple) else y
        return x


class Chunked(nn.Module):
    """Blocks inside of chunks that hold one each."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.m, self.h = nn.Linear(7, D), nn.Sequential(Chunk(), Chunk(), Chunk()), nn.Linear(D, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.m(self.e(x)).mean(1))


class Shared(Base):
    """The second block runs the first one's layers again."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.e(x) + self.p
        for a, f in (self.m[0], self.m[0], self.m[2]):
            x = self.step(x, a, f)
        return self.h(x.mean(1))


class InPlace(Base):
    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        y = a(x)
        y += x
        z = f(y)
        z += y
        return z


class Through(Base):
    """Changed in place by another shape of the same memory."""

    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        x = x + a(x)
        x.view(-1, D).add_(f(x).view(-1, D))
        return x


class NoStream(Base):
    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        return f(a(x))


class NoAttention(Base):
    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        return x + f(x)


class Twice(Base):
    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        x = x + a(x)
        return super().step(x, a, f)


class Fewer(Base):
    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        return super().step(x, a, f)[:, 1:]


class SequenceFirst(Base):
    def __init__(self) -> None:
        super().__init__(lambda: nn.MultiheadAttention(D, H))

    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        x = x.transpose(0, 1) if a is self.m[0][0] else x
        x = x + a(x, x, x)[0]
        return x + f(x)


class Mixer(Base):
    """A feed-forward over tokens beside the one over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.t = nn.Linear(N, N)

    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        x = x + a(x)
        return x + f(x + self.t(x.mT).mT)


class Between(Base):
    """Running sums between the blocks."""

    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        x = super().step(x, a, f)
        return x + x.cumsum(1)


class First(Base):
    """The first of three layers has running sums in the place of attention."""

    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        if a is not self.m[0][0]:
            return super().step(x, a, f)
        x = x + x.tanh().cumsum(1)
        return x + f(x)


class Shuffled(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, torch.randperm(N)])


class Positioned(Base):
    """Positions from a convolution over the tokens, before the blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv1d(D, D, 3, padding=1)

    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        return super().step(x + F.gelu(self.c(x.mT).mT) if a is self.m[0][0] else x, a, f)


class Beside(Base):
    """A feed-forward with its channels first, and a convolution over single tokens: nothing mixes them."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv1d(D, D, 1)

    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        x = x + a(x)
        return x + f(x + self.c(x.mT).mT)


class Sequences(Base):
    """Every sample is two sequences."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.repeat_interleave(2, 0)).unflatten(0, (-1, 2)).mean(1)


class Two(nn.Module):
    """Two stacks beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Base(), Base()

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x.flip(1))


class Named(Two):
    """One of them is to be explained."""

    @property
    def tower(self) -> nn.Module:
        return self.a


class Crossed(nn.Module):
    """Blocks that attend to another sequence of as many tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.f, self.q, self.v = nn.Linear(7, D), nn.Linear(7, D), nn.Linear(D, D), nn.Linear(D, 2 * D)
        self.h = nn.Linear(D, K)

    def forward(self, x: Tensor) -> Tensor:
        x, y = self.e(x), self.f(x.flip(1))
        k, v = self.v(y).chunk(2, -1)
        x = x + F.scaled_dot_product_attention(self.q(x), k, v)
        return self.h(x.mean(1))


class Encoder(nn.Module):
    """torch's own."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(D, H, 2 * D, batch_first=True, norm_first=norm_first)
        self.e, self.m, self.h = nn.Linear(7, D), nn.TransformerEncoder(layer, 3), nn.Linear(D, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.m(self.e(x)).mean(1))


class Known(NamedTuple):
    """A model, and the call of a module that a reader of its code names as what its second block reads."""

    model: nn.Module
    module: nn.Module
    nth: int = 0


def known() -> dict[str, Callable[[], Known]]:
    def of(
        build: Callable[[], nn.Module], module: Callable[[nn.Module], nn.Module], nth: int = 0
    ) -> Callable[[], Known]:
        def built() -> Known:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = redrawn(build())
            return Known(model, module(model), nth)

        return built

    return {
        "attention with its own norm": of(Base, lambda m: m.m[1][0].k2),
        "post-norm, written out": of(lambda: PostNorm(NoNorm), lambda m: m.m[1][0]),
        "no norms": of(lambda: Base(NoNorm), lambda m: m.m[1][0]),
        "chunks": of(Chunked, lambda m: m.m[1].m[1].a.k2),
        "parallel": of(Parallel, lambda m: m.m[1][0].k2),
        "channels first": of(Beside, lambda m: m.m[1][0].k2),
        "positions by a convolution": of(Positioned, lambda m: m.m[1][0].k2),
        "shared layers": of(Shared, lambda m: m.m[0][0].k2, 1),
        "in place": of(InPlace, lambda m: m.m[1][0].k2),
        "torch pre-norm": of(lambda: Encoder(True), lambda m: m.m.layers[1].self_attn),
        "torch post-norm": of(lambda: Encoder(False), lambda m: m.m.layers[1]),
        "one of two": of(Named, lambda m: m.a.m[1][0].k2),
    }


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "talking heads": (lambda: Base(TalkingHeads), "linear stands between the softmax and the values"),
    "differential": (lambda: Base(Differential), "stands between the softmax and the values"),
    "channels": (lambda: Base(Channels), "8 places attend to 8, with a stream of 10 tokens"),
    "windows": (lambda: Base(Windows), "5 places attend to 5, with a stream of 10 tokens"),
    "convolution": (lambda: Base(Convolved), "a convolution of 3 (conv1d) mixes tokens"),
    "tokens over tokens": (Mixer, "tokens reach each other behind the attention (mT, linear)"),
    "sums over tokens": (Between, "tokens reach each other behind the attention (cumsum)"),
    "another layer first": (
        First,
        "layers before block 0, in which tokens reach each other without attention (cumsum)",
    ),
    "random order": (Shuffled, "random numbers (randperm)"),
    "no stream": (NoStream, "not added to the tokens that it was made of"),
    "no attention": (NoAttention, "no attention"),
    "two attentions": (Twice, "a second attention follows the first"),
    "fewer tokens": (Fewer, "changes its size on the way"),
    "sequence first": (SequenceFirst, "the sequence before the batch"),
    "several sequences": (Sequences, "sequences for"),
    "changed through another shape": (Through, "no module and no torch call gives"),
    "two towers": (Two, "with 2 transformers"),
    "cross-attention": (Crossed, "cross-attention"),
}
