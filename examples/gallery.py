"""Every method on one scene of two digits: each pair shows the map for the first digit and that for the second.

    python examples/gallery.py [FILE]

A method that uses the target marks one digit on the left and the other on the right.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from captum.attr import Attribution
from torch import Tensor

import captum_vit as cv
from captum_vit import viz
from captum_vit.demo import Scenes, demo_vit, digit_scenes


def maps(method: Attribution, scenes: Scenes) -> Tensor:  # shape: (2, 1, 8, 8)
    """The method's maps of the scene for its two digits."""
    torch.manual_seed(0)  # for those that sample
    return method.attribute(scenes.images.expand(2, -1, -1, -1), target=scenes.digits[0])


def main(out: Path) -> None:
    model, scenes = demo_vit(), digit_scenes(1, n_digits=2, seed=14)
    names = [model.pretrained_cfg["label_names"][digit] for digit in scenes.digits[0].tolist()]
    cells = {name: maps(make(model), scenes) for name, make in cv.METHODS.items()}
    viz.gallery([scenes.pixels[0]] * 2, cells, names=names).savefig(out)
    print(f"{len(cells)} methods, for {names[0]} and for {names[1]}: {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("gallery.png"))
