"""Concepts shown by examples, not by a class: what in this picture is near to "things like these"?

A concept is the mean embedding of a few pictures. Here each is made of 30 scenes of one digit, as the CDAM paper makes
its own, and looked for in scenes of two digits that were not among them. The head, and with it the names of the
classes, takes no part.

    python examples/concept_from_images.py [--out FILE] [--overwrite]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import captum_vit as cv
from captum_vit import viz
from captum_vit.demo import Scenes, demo_vit, digit_scenes
from captum_vit.viz.files import check_target, write_figure, write_whole

SIMILARITIES = {"dot": "dot product", "cosine": "cosine", "neg_l2": "minus L2 distance"}
METHODS = {
    "LayerCDAM": cv.LayerCDAM,
    "PLUS(DecompX)": lambda f: cv.PLUS(cv.DecompX(f)),
}


def examples(names: tuple[str, ...], n: int = 30) -> dict[str, Tensor]:
    """Scenes of a single digit, by the name of the digit: from the training split, so none is met again."""
    scenes = digit_scenes(20 * n, n_digits=1, split="train", seed=5)
    return {name: scenes.images[scenes.label == digit][:n] for digit, name in enumerate(names)}


def nearer_on_its_own(maps: Tensor, scenes: Scenes) -> Tensor:  # shape: (B, 2), bool
    """Whether the map of each digit's concept (B, 2, h, w) is stronger on that digit than on the other one."""
    strokes = F.adaptive_avg_pool2d(scenes.masks.float(), maps.shape[-2:])
    strokes = strokes / strokes.sum((2, 3), keepdim=True)
    on = torch.einsum("bkhw,bjhw->bkj", maps, strokes)  # concept k on digit j
    return on.diagonal(dim1=1, dim2=2) > on.flip(2).diagonal(dim1=1, dim2=2)


def main(out: Path, overwrite: bool) -> None:
    out = check_target(out, {".png", ".pdf", ".svg"}, overwrite)  # before the work
    model = demo_vit()
    names = model.pretrained_cfg["label_names"]
    shown, scenes = examples(names), digit_scenes(30, n_digits=2, seed=3)

    columns = {}
    for similarity, called in SIMILARITIES.items():
        concepts = cv.ConceptSimilarity.from_images(model, shown, similarity)
        with torch.no_grad():
            nearest = concepts(scenes.images).argmax(1, keepdim=True)  # of ten concepts
        right = (nearest == scenes.digits).any(1).float().mean()
        print(f"{called}: the nearest concept is one of both digits in {right:.2f} of {len(scenes)} scenes")
        for method, make in METHODS.items():
            explainer = make(concepts)
            maps = torch.cat([explainer.attribute(scenes.images, target=scenes.digits[:, k]) for k in (0, 1)], 1)
            own = nearer_on_its_own(maps, scenes).float().mean().item()
            print(f"  {method}: stronger on its own digit than on the other in {own:.2f} of {2 * len(scenes)} maps")
            assert own > 0.6
            columns[f"{method}\n{called}"] = maps[:2].flatten(0, 1)

    pixels, asked = scenes.pixels[:2].repeat_interleave(2, 0), scenes.digits[:2].flatten()
    figure = viz.panels(list(pixels), columns, rows=[f"like these\n30 {names[k]}s" for k in asked])
    write_whole(out, lambda path: write_figure(figure, out.suffix[1:], path))
    print(f"two scenes and the concepts of both their digits: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("concept_from_images.png"), help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    args = parser.parse_args()
    main(args.out, args.overwrite)
