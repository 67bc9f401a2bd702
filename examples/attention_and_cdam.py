"""No attention, no relevance: every patch of many pictures, its attention against what three CDAMs give it.

The CDAM paper draws this for 200 pictures of ImageNet (Figure S1); here they are scenes of one digit. A patch that no
head of the last block attends to has a score of zero. The more attention, the larger a score of either sign may be.

    python examples/attention_and_cdam.py [--out FILE] [--overwrite]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import captum_vit as cv
from captum_vit.demo import demo_vit, digit_scenes
from captum_vit.viz.files import check_target, write_figure, write_whole

METHODS = {"CDAM": cv.LayerCDAM, "Integrated CDAM": cv.LayerIntegratedCDAM, "Smooth CDAM": cv.LayerSmoothCDAM}


def main(out: Path, overwrite: bool, n: int = 200) -> None:
    out = check_target(out, {".png", ".pdf", ".svg"}, overwrite)  # before the work
    model, scenes = demo_vit(), digit_scenes(n, n_digits=1, seed=7)
    torch.manual_seed(0)  # Smooth CDAM draws
    attention = cv.RawAttention(model).attribute(scenes.images).flatten()
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, make) in zip(figure.subplots(1, len(METHODS), sharey=True), METHODS.items(), strict=True):
        relevance = make(model).attribute(scenes.images, target=scenes.label).flatten()
        axes.scatter(attention, relevance, s=3, alpha=0.25, linewidths=0, color="#1a6fd0", rasterized=True)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set(title=name, xlabel="attention of CLS, mean of heads")
        axes.spines[["top", "right"]].set_visible(False)
        little = attention < attention.quantile(0.25)
        share = relevance[little].abs().sum() / relevance.abs().sum()
        print(f"{name}: the quarter of patches with the least attention has {share:.2%} of all relevance")
    figure.axes[0].set_ylabel("relevance for the digit")
    write_whole(out, lambda path: write_figure(figure, out.suffix[1:], path))
    print(f"{len(attention):,} patches of {n} scenes: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("attention_and_cdam.png"), help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    args = parser.parse_args()
    main(args.out, args.overwrite)
