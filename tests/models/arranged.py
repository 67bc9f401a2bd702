"""A transformer of our own with meaningless names, whose sequence may be in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from tests.models.table import CLASSES, redrawn

WIDTH, HEADS = 24, 3


class Lo(nn.Module):
    """Attention."""

    def __init__(self) -> None:
        super().__init__()
        self.qa, self.pu = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qa(x).unflatten(-1, (3, HEADS, -1)).movedim(-3, 0).transpose(2, 3)
        return self.pu(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Zum(nn.Module):
    """A pre-norm block."""

    def __init__(self) -> None:
        super().__init__()
        self.ka, self.lo, self.ne = nn.LayerNorm(WIDTH), Lo(), nn.LayerNorm(WIDTH)
        self.ri = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.lo(self.ka(x))
        return x + self.ri(self.ne(x))


class Unfolded(nn.Module):
    """A convolution as a linear map of unfolded patches."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.co = convolution

    def forward(self, x: Tensor) -> Tensor:
        (height, width), weight = self.co.kernel_size, self.co.weight.flatten(1)
        rows, columns = x.shape[2] // height, x.shape[3] // width
        patches = F.unfold(x, (height, width), stride=(height, width)).mT
        return F.linear(patches, weight, self.co.bias).mT.unflatten(2, (rows, columns))


class Vek(nn.Module):
    """Patches in reading order behind special tokens, and then in an order of one's own.

    Args:
        order: which of those tokens stands at each place of the sequence; None: as they are.
        specials: how many special tokens there are; the first one is read.
        grid: rows and columns of patches.
        embedding: makes (B, D, h, w) of a picture.
    """

    def __init__(self, order: Sequence[int] | None, specials: int, grid: tuple[int, int], embedding: nn.Module) -> None:
        super().__init__()
        n = specials + grid[0] * grid[1]
        self.order = list(range(n)) if order is None else list(order)
        self.um, self.tas = embedding, nn.Parameter(torch.zeros(1, specials, WIDTH))
        self.posi = nn.Parameter(torch.zeros(1, n, WIDTH))
        self.zums, self.fin = nn.ModuleList([Zum(), Zum()]), nn.LayerNorm(WIDTH)
        self.end = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        t = self.um(x).flatten(2).mT
        t = (torch.cat([self.tas.expand(len(x), -1, -1), t], 1) + self.posi)[:, self.order]
        for zum in self.zums:
            t = zum(t)
        return self.end(self.fin(t)[:, self.order.index(0)])


cv.register_spec(Vek, spec=cv.Spec(blocks="zums", attn="lo", out_proj="lo.pu", mid="ne", family="Vek"))

GRID = (3, 4)
PATCHES = GRID[0] * GRID[1]
COLUMNS = [1 + row * GRID[1] + column for column in range(GRID[1]) for row in range(GRID[0])]

ORDERS: dict[str, tuple[int, list[int]]] = {
    "CLS in the middle": (1, [*range(1, 6), 0, *range(6, 13)]),
    "CLS last": (1, [*range(1, 13), 0]),
    "columns": (1, [0, *COLUMNS]),
    "columns before CLS": (1, [*COLUMNS, 0]),
    "prompts behind": (3, [0, *range(3, 15), 1, 2]),
    "registers among the patches": (3, [1, *range(3, 8), 0, *range(8, 15), 2]),
}
"""How many special tokens there are, and in which order the sequence has them and the patches."""


@cache
def arranged(name: str) -> tuple[nn.Module, nn.Module]:
    """A model with its sequence in this order, and one of the same weights with special tokens in front."""
    specials, order = ORDERS[name]
    plain = redrawn(Vek(None, specials, GRID, nn.Conv2d(3, WIDTH, 8, 8))).double()
    model = Vek(order, specials, GRID, nn.Conv2d(3, WIDTH, 8, 8)).double().eval()
    model.load_state_dict(plain.state_dict())
    return model, plain


def with_embedding(
    embedding: nn.Module, grid: tuple[int, int], before: Callable[[Tensor], Tensor] | None = None
) -> nn.Module:
    """A model with this embedding, in reading order behind CLS."""
    return redrawn(Vek(None, 1, grid, embedding)).double()
