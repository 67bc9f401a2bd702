"""Two photographs side by side, and a dense head: does the map for the saliency of one lie on it?

    python -m tests.real.boxes FOLDER [--only GenAtt DecompX] [--picture boxes.png]

FOLDER is what ``python -m tests.real.dinov2`` writes. Every two of four photographs of skimage.data make a picture of
112 x 224 pixels; a target is the mean saliency logit over one half. Six pictures, both halves of each: 12 maps. All
marks are of the salient patches, whose mean saliency logit is above zero.

pointing     the share of maps whose largest relevance is in the right half
AUC          how often a patch of the right half has more relevance than one of the other half
LIF - MIF    area between the curves when least and most important patches take the mean colour first
correlation  between the maps of a picture's two targets
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import torch
from skimage import data
from torch import Tensor
from torch.nn import functional as F

from captum_vit import viz
from quantus_metrics.perturb import Mean
from tests.real.dinov2 import MEAN, PATCH, STD, BoxSaliency, load
from tests.real.marks import Pairs, arguments, origin, parser

SIDE = 112  # pixels of a photograph
PHOTOGRAPHS = {
    "astronaut": data.astronaut,
    "cat": data.cat,
    "coffee": data.coffee,
    "motorcycle": lambda: data.stereo_motorcycle()[0],
}
SHOWN = ("GenAtt", "VTranM", "LayerCDAM", "DecompX")
DRAWN = ("cat", "coffee")


def photograph(name: str) -> Tensor:  # shape: (3, SIDE, SIDE), in [0, 1]
    """The centre of a photograph, as a square."""
    x = torch.tensor(PHOTOGRAPHS[name]()).permute(2, 0, 1)[None] / 255
    side = min(x.shape[-2:])
    top, left = ((length - side) // 2 for length in x.shape[-2:])
    square = x[..., top : top + side, left : left + side]
    return F.interpolate(square, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)[0]


def halves() -> Tensor:  # shape: (2, h, w), bool
    """The patches of the left and of the right photograph."""
    n = SIDE // PATCH
    left = (torch.arange(2 * n) < n).expand(n, -1)
    return torch.stack([left, ~left])


def benchmark(model: BoxSaliency, pixels: Tensor) -> Pairs:
    """The pictures, their halves, and the salient patches of each."""
    images = (pixels - MEAN) / STD
    with torch.no_grad():
        salient = F.avg_pool2d(model.saliency(images), model.head.scale) > 0  # (n, h, w)
    targets = torch.tensor([0, 1]).expand(len(images), 2)
    own = salient.unsqueeze(1) & model.boxes.bool()
    return Pairs(model, images, (), targets, own, Mean(), measured=len(images), fractions=[k / 5 for k in range(6)])


def main() -> None:
    given = arguments(parser(__doc__, "dinov2"), "dinov2")
    model = BoxSaliency(*load(given.model), halves()).eval()
    print(origin(model, "dinov2"), "\n")
    names = list(combinations(PHOTOGRAPHS, 2))
    pixels = torch.stack([torch.cat([photograph(name) for name in pair], -1) for pair in names])
    maps = benchmark(model, pixels).table(given.only)
    if given.picture:
        picture(maps, pixels, names.index(DRAWN), given.picture)


def picture(maps: dict[str, Tensor], pixels: Tensor, row: int, path: Path) -> None:
    """One picture by every method, for both of its halves."""
    columns = {name: maps[name][row] for name in SHOWN if name in maps}
    rows = [f"saliency of the {name}" for name in DRAWN]
    viz.panels(pixels[row], columns, rows=rows).savefig(path, dpi=75)


if __name__ == "__main__":
    main()
