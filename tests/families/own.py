"""Ten transformers whose classes and attributes have names that say nothing, each built in another way.

Each notes what its attentions read and their probabilities, for twins that need no hooks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.families.shrink import CLASSES, HEADS, PATCH, SIDE, WIDTH, WORDS
from tests.families.weights import redrawn
from tests.models import Case


class Note(NamedTuple):
    """What one attention read (B, N, D), and its probabilities (B, H, N, N); without these, what leaves the blocks."""

    tokens: Tensor
    probs: Tensor | None


_notes: deque[Note] = deque(maxlen=8)


@contextmanager
def noting() -> Iterator[deque[Note]]:
    """What the attentions of these models note meanwhile."""
    _notes.clear()
    try:
        yield _notes
    finally:
        _notes.clear()


class Ka(nn.Module):
    """A pre-norm block, with a fused projection and scaled_dot_product_attention."""

    def __init__(self) -> None:
        super().__init__()
        self.u1, self.u2 = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.zz = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.m, self.n = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def heads(self, t: Tensor) -> tuple[Tensor, ...]:
        return self.u1(t).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4).unbind()

    def mix(self, t: Tensor) -> Tensor:
        q, k, v = self.heads(t)
        _notes.append(Note(t, (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).detach()))
        return self.u2(self.met(q, k, v).transpose(1, 2).flatten(2))

    def met(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, t: Tensor) -> Tensor:
        t = t + self.mix(self.m(t))
        return t + self.zz(self.n(t))


class Kb(Ka):
    """Post-norm; attention written with matmul and softmax."""

    def met(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v

    def forward(self, t: Tensor) -> Tensor:
        t = self.m(t + self.mix(t))
        return self.n(t + self.zz(t))


class Kc(Kb):
    """Attention and feed-forward in parallel, from the same norm."""

    def forward(self, t: Tensor) -> Tensor:
        s = self.m(t)
        return t + self.mix(s) + self.zz(s)


class Kd(Ka):
    """Norms are functions; attention written with einsum."""

    def met(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("bhid,bhjd->bhij", q * q.shape[-1] ** -0.5, k)
        return torch.einsum("bhij,bhjd->bhid", torch.softmax(scores, -1), v)

    def forward(self, t: Tensor) -> Tensor:
        t = t + self.mix(F.layer_norm(t, (WIDTH,), self.m.weight, self.m.bias))
        return t + self.zz(F.layer_norm(t, (WIDTH,), self.n.weight, self.n.bias))


class Ke(Ka):
    """A norm on each side of each branch."""

    def __init__(self) -> None:
        super().__init__()
        self.o, self.p = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, t: Tensor) -> Tensor:
        t = t + self.o(self.mix(self.m(t)))
        return t + self.p(self.zz(self.n(t)))


class Kf(Kb):
    """Queries and keys are normed in each head."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.s = (nn.LayerNorm(WIDTH // HEADS) for _ in range(2))

    def heads(self, t: Tensor) -> tuple[Tensor, ...]:
        q, k, v = super().heads(t)
        return self.r(q), self.s(k), v

    forward = Ka.forward


class Zed(nn.Module):
    """Patches through a linear map, then blocks; the first token is read."""

    front, behind = 1, 0

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.a1 = nn.Linear(3 * PATCH**2, WIDTH)
        self.a2 = nn.Parameter(torch.zeros(1, (SIDE // PATCH) ** 2 + self.front + self.behind, WIDTH))
        self.a3 = nn.Parameter(torch.zeros(1, self.front + self.behind, WIDTH))
        self.qq = nn.ModuleList(blocks)
        self.last, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def cut(self, x: Tensor) -> Tensor:
        return F.unfold(x, PATCH, stride=PATCH).mT

    def placed(self, t: Tensor) -> Tensor:
        further = self.a3.expand(len(t), -1, -1)
        return torch.cat([further[:, : self.front], t, further[:, self.front :]], 1)

    def read(self, t: Tensor) -> Tensor:
        return t[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        t = self.placed(self.a1(self.cut(x))) + self.a2
        for block in self.qq:
            t = block(t)
        _notes.append(Note(t, None))
        return self.out(self.read(self.last(t)))


class Columns(Zed):
    """Patches column by column."""

    def cut(self, x: Tensor) -> Tensor:
        return super().cut(x).unflatten(1, (SIDE // PATCH, -1)).transpose(1, 2).flatten(1, 2)


class Middle(Zed):
    """The token that is read stands between the patches."""

    def placed(self, t: Tensor) -> Tensor:
        half = t.shape[1] // 2
        return torch.cat([t[:, :half], self.a3.expand(len(t), -1, -1), t[:, half:]], 1)

    def read(self, t: Tensor) -> Tensor:
        return t[:, t.shape[1] // 2]


class Behind(Zed):
    """Three learned tokens behind the patches, whose mean is read."""

    front, behind = 0, 3

    def read(self, t: Tensor) -> Tensor:
        return t[:, : -self.behind].mean(1)


class Registers(Zed):
    front = 5


class Shared(Zed):
    """One block, run three times."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self.qq = nn.ModuleList([block] * 3)


class Two(nn.Module):
    """Two stacks over the same image, whose tokens are read together."""

    def __init__(self) -> None:
        super().__init__()
        self.b1, self.b2 = Zed(Ka(), Ka()), Columns(Ka(), Ka())

    def forward(self, x: Tensor) -> Tensor:
        return self.b1(x) + self.b2(x)


class Wordy(nn.Module):
    """Words; padding is hidden by no mask, so every text of a batch is as long."""

    def __init__(self) -> None:
        super().__init__()
        self.a1, self.a2 = nn.Embedding(WORDS, WIDTH), nn.Parameter(torch.zeros(1, 9, WIDTH))
        self.qq = nn.ModuleList([Kb(), Kb()])
        self.out = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        t = self.a1(x) + self.a2
        for block in self.qq:
            t = block(t)
        _notes.append(Note(t, None))
        return self.out(t[:, 0])


OWN: dict[str, Callable[[], nn.Module]] = {
    "own: post-norm words": Wordy,
    "own: parallel, columns": lambda: Columns(Kc(), Kc()),
    "own: functional norms, einsum": lambda: Zed(Kd(), Kd()),
    "own: CLS in the middle": lambda: Middle(Ka(), Ka()),
    "own: prompts behind": lambda: Behind(Kb(), Kb()),
    "own: sandwich norms": lambda: Zed(Ke(), Ke()),
    "own: q/k-norm": lambda: Zed(Kf(), Kf()),
    "own: registers": lambda: Registers(Kd(), Kd()),
    "own: two streams": Two,
    "own: shared layer": lambda: Shared(Ka()),
}


def names() -> list[str]:
    return list(OWN)


def build(name: str) -> Case:
    model = redrawn(OWN[name]())
    inputs = torch.randint(6, WORDS, (3, 9)) if isinstance(model, Wordy) else torch.randn(3, 3, SIDE, SIDE)
    return Case(model, inputs)
