"""A regression model with eight outputs, each of them a target: what makes this nodule look spiculated?

The CDAM paper explains a model that reads eight biomarkers off lung nodules in CT scans. Here nodules are drawn, so
that their contour and the truth about each output are known, and a small transformer learns to grade them while you
wait (twenty seconds of one CPU thread). Then every output is explained, and it is measured how much of the
relevance lies on the nodule.

    python examples/lung_style_regression.py [--out FILE] [--overwrite]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from captum.attr import Attribution, IntegratedGradients
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

import captum_vit as cv
from captum_vit import viz
from captum_vit.viz.files import check_target, write_figure, write_whole

SIDE, STEPS, SHOWN = 48, 900, 88
OUTPUTS = ("diameter", "subtlety", "margin", "spiculation", "calcification", "texture", "row", "column")

METHODS: dict[str, Callable[[nn.Module], Attribution]] = {
    "LayerCDAM": cv.LayerCDAM,
    "LayerSmoothCDAM": cv.LayerSmoothCDAM,
    "PLUS(DecompX)": lambda model: cv.PLUS(cv.DecompX(model)),
}


def nodules(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scans (n, 3, 48, 48) in [0, 1], the eight grades of each (n, 8) from -1 to 1, and what lies inside (n, 48, 48).

    Six of the paper's biomarkers, and where the nodule is. (Sphericity and lobulation take a larger model than
    twenty seconds train.) Every grade is drawn by itself, so none can be guessed from another.
    """
    draw = torch.Generator().manual_seed(seed)
    grades = torch.rand(n, len(OUTPUTS), generator=draw)
    diameter, subtlety, margin, spiculation, calcification, texture, row, column = grades[:, :, None, None].unbind(1)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, generator=draw)

    y, x = torch.arange(SIDE)[:, None] + 0.5, torch.arange(SIDE) + 0.5
    down, right = y - (18 + 12 * row), x - (18 + 12 * column)
    angle, distance = torch.atan2(down, right), torch.hypot(down, right)
    radius = 6 + 7 * diameter
    edge = radius * (1 + 0.08 * (2 * angle + uniform(0, 7)).cos() + 0.05 * (3 * angle + uniform(0, 7)).cos())
    edge = edge + 8 * spiculation * (4 * angle + uniform(0, 7)).cos().abs() ** 6

    body = torch.sigmoid((edge - distance) / (0.4 + 2.1 * (1 - margin)))
    holes = F.interpolate(torch.rand(n, 1, 16, 16, generator=draw), SIDE)[:, 0] > 0.6
    scan = 0.2 + 0.03 * F.interpolate(torch.randn(n, 1, 7, 7, generator=draw), SIDE, mode="bicubic")[:, 0]
    for _ in range(2):  # vessels
        turn = uniform(0, math.pi)
        across = (y - 24) * turn.sin() + (x - 24) * turn.cos() - uniform(-24, 24)
        scan = scan + 0.12 * (-(across**2) / 1.44).exp()
    scan = scan + (0.2 + 0.3 * subtlety) * body * (1 - 0.8 * texture * holes)
    scan = scan + 0.3 * calcification * (-((distance / 4) ** 4)).exp()
    scan = scan + 0.02 * torch.randn(n, SIDE, SIDE, generator=draw)
    return scan.clamp(0, 1).unsqueeze(1).repeat(1, 3, 1, 1), 2 * grades - 1, distance < edge


def normalised(scans: Tensor) -> Tensor:
    return (scans - 0.4) / 0.2


def trained() -> VisionTransformer:
    """Eight numbers for each scan, by the mean squared error."""
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=SIDE, patch_size=6, num_classes=len(OUTPUTS), embed_dim=48, depth=2, num_heads=4, mlp_ratio=2
    )
    scans, grades, _ = nodules(6000, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=STEPS)
    for _ in trange(STEPS, desc="training", unit="step"):
        rows = torch.randint(len(scans), (32,))
        loss = F.mse_loss(model(normalised(scans[rows])), grades[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def share_inside(
    maps: Tensor,  # shape: (n, c, h, w), of patches or of pixels
    inside: Tensor,  # shape: (n, H, W)
) -> float:
    """How much of the absolute relevance lies on the nodule; the mean over scans."""
    strength = F.interpolate(maps.abs().sum(1, keepdim=True), size=inside.shape[1:])[:, 0]
    return ((strength * inside).sum((1, 2)) / strength.sum((1, 2))).mean().item()


def main(out: Path, overwrite: bool) -> None:
    out = check_target(out, {".png", ".pdf", ".svg"}, overwrite)  # before the work
    model = trained()
    scans, grades, inside = nodules(200, seed=1)
    with torch.no_grad():
        said = model(normalised(scans))
    r2 = 1 - (said - grades).square().mean(0) / grades.var(0)

    # Targets are forward functions, so methods of Captum's own take them as well.
    methods = {name: make(model) for name, make in METHODS.items()}
    methods["IntegratedGradients"] = IntegratedGradients(cv.logits_of(model))
    few, chance, options = normalised(scans[:32]), inside[:32].float().mean(), {"IntegratedGradients": {"n_steps": 10}}
    print(f"relevance on the nodule (which covers {chance:.2f} of a scan), of 32 held-out scans")
    print(f"{'output':14}{'R2':>6}" + "".join(f"{name:>21}" for name in methods))
    for k, name in enumerate(OUTPUTS):
        shares = [
            share_inside(method.attribute(few, target=k, **options.get(called, {})), inside[:32])
            for called, method in methods.items()
        ]
        print(f"{name:14}{r2[k]:6.2f}" + "".join(f"{share:21.2f}" for share in shares))
        assert r2[k] > 0.3 and shares[2] > chance

    # All eight outputs of one scan by each method; CDAM needs little more than one forward pass for all of them.
    one = normalised(scans[SHOWN : SHOWN + 1])
    every = torch.stack([torch.cat([methods[name].attribute(one, target=k) for k in range(8)]) for name in METHODS])
    torch.testing.assert_close(methods["LayerCDAM"].all_classes(one)[0], every[0, :, 0], rtol=1e-3, atol=1e-5)
    told = [f"{name}\n{a:+.1f} (is {b:+.1f})" for name, a, b in zip(OUTPUTS, said[SHOWN], grades[SHOWN], strict=True)]
    columns = dict(zip(told, every.unbind(1), strict=True))
    figure = viz.panels(scans[SHOWN], columns, rows=list(METHODS))
    for axes in figure.axes:
        height, width = axes.images[0].get_array().shape[:2]
        places = [(torch.arange(SIDE) + 0.5) * size / SIDE - 0.5 for size in (width, height)]
        axes.contour(*places, inside[SHOWN].float(), levels=[0.5], colors="white", linewidths=0.9)
    write_whole(out, lambda path: write_figure(figure, out.suffix[1:], path))
    print(f"every output of one scan, the nodule's contour in white: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("lung_style_regression.png"), help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    args = parser.parse_args()
    main(args.out, args.overwrite)
