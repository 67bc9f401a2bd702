"""A transformer of no library, explained.

The model is written by hand, with names of its own. It learns in a few seconds to name the colour of a small
square; the check is that the maps point at the square.

    python examples/your_own_model.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv


class Look(nn.Module):
    """Attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.merge = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.merge(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention, then feed-forward, each normed first and added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.look, self.think = Look(width, heads), nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))
        self.calm, self.calm_again = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.look(self.calm(x))
        return x + self.think(self.calm_again(x))


class Reader(nn.Module):
    """Images of 32 x 32 pixels, cut into 4 x 4 patches behind one token that gathers the answer."""

    def __init__(self, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, 8, 8)
        self.gather, self.place = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.randn(1, 17, width) / 9)
        self.stack = nn.ModuleList(Layer(width, heads=4) for _ in range(depth))
        self.answer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, 32, 32) -> (B, 3)
        patches = self.cut(images).flatten(2).mT
        x = torch.cat([self.gather.expand(len(images), -1, -1), patches], 1) + self.place
        for layer in self.stack:
            x = layer(x)
        return self.answer(x[:, 0])


def squares(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (n, 3, 32, 32) with one patch in red, green or blue; the colours (n,); the patches (n,)."""
    colour, place = torch.randint(3, (n,)), torch.randint(16, (n,))
    images = torch.randn(n, 3, 32, 32) / 2
    for image, c, p in zip(images, colour, place, strict=True):
        image[c, 8 * (p // 4) : 8 * (p // 4) + 8, 8 * (p % 4) : 8 * (p % 4) + 8] += 1
    return images, colour, place


def trained() -> Reader:
    model = Reader()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        images, colour, _ = squares(64)
        loss = F.cross_entropy(model(images), colour)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def main() -> None:
    torch.manual_seed(0)
    model = trained()
    images, colour, place = squares(200)
    print(cv.doctor(model, images), end="\n\n")
    print(f"accuracy {(model(images).argmax(1) == colour).float().mean():.2f}")
    for method in (cv.GenAtt(model), cv.PLUS(cv.DecompX(model))):
        maps = method.attribute(images, target=colour)  # (200, 1, 4, 4)
        hit = (maps.flatten(1).argmax(1) == place).float().mean()
        print(f"{type(method).__name__} points at the square in {hit:.2f} of 200 images (by chance: 0.06)")
        assert hit > 0.7


if __name__ == "__main__":
    main()
