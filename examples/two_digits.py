"""The picture of the home page of the documentation: scenes of two digits, explained for each of them.

python examples/two_digits.py [FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import captum_vit as cv
from captum_vit import viz
from captum_vit.demo import demo_vit, digit_scenes

METHODS = {
    "LayerCDAM": cv.LayerCDAM,
    "PLUS(DecompX)": lambda model: cv.PLUS(cv.DecompX(model)),
    "VTranM": cv.VTranM,
    "GenAtt": cv.GenAtt,
    "PredicAtt": cv.PredicAtt,
    "RawAttention": cv.RawAttention,
}


def main(out: Path) -> None:
    model, scenes = demo_vit(), digit_scenes(2, n_digits=2, seed=3)
    images, targets = scenes.images.repeat_interleave(2, 0), scenes.digits.flatten()
    names = model.pretrained_cfg["label_names"]
    figure = viz.panels(
        list(scenes.pixels.repeat_interleave(2, 0)),
        {name: make(model).attribute(images, target=targets) for name, make in METHODS.items()},
        rows=[names[target] for target in targets.tolist()],
    )
    figure.savefig(out, dpi=110)
    print(f"{len(images)} rows, {len(METHODS)} methods: {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("two_digits.png"))
