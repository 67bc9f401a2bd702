"""Every method on one scene of two digits: each pair shows the map for the first digit and that for the second.

    python examples/gallery.py [FILE]

A method that knows the target lights up one digit on the left and the other on the right.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from captum.attr import Attribution
from matplotlib.figure import Figure

import captum_vit as cv
from captum_vit import viz
from captum_vit.demo import Scenes, demo_vit, digit_scenes

COLUMNS = 6


def pair(left: np.ndarray, right: np.ndarray) -> np.ndarray:  # shape of each: (H, W, 3)
    """Two pictures side by side with a white line between them."""
    return np.concatenate([left, np.ones_like(left[:, :6]), right], axis=1)


def maps(method: Attribution, scenes: Scenes) -> np.ndarray:
    """The method's maps of the scene for its two digits."""
    torch.manual_seed(0)  # for those that sample
    both = method.attribute(scenes.images.expand(2, -1, -1, -1), target=scenes.digits[0])
    large = torch.nn.functional.interpolate(scenes.pixels, scale_factor=3, mode="nearest")[0]
    return pair(*(viz.blend(large, one) for one in both))


def main(out: Path) -> None:
    model, scenes = demo_vit(), digit_scenes(1, n_digits=2, seed=14)
    first, second = (model.pretrained_cfg["label_names"][digit] for digit in scenes.digits[0].tolist())
    seen = scenes.pixels[0].permute(1, 2, 0).numpy()
    cells = {f"input: {first}, {second}": pair(seen, seen)}
    cells |= {name: maps(make(model), scenes) for name, make in cv.METHODS.items()}

    rows = -(-len(cells) // COLUMNS)
    figure = Figure(figsize=(2.4 * COLUMNS, 1.45 * rows), layout="constrained", facecolor="white")
    grid = figure.subplots(rows, COLUMNS)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (name, picture) in zip(grid.flat, cells.items(), strict=False):
        axes.imshow(picture.clip(0, 1))
        axes.set_title(name, fontsize=9, pad=3)
    figure.savefig(out, dpi=100)
    print(f"{len(cells) - 1} methods, for {first} and for {second}: {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("gallery.png"))
