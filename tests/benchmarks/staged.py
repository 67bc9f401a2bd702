"""What explanations cost on a Swin and on a film: time as a ratio to one plain forward pass, beside grad-cam's GradCAM.

    python -m tests.benchmarks.staged [--repeats 5] [--batch 1]

Swin-T of 224 pixels, and VideoMAE of the width and depth of ViT-S on 16 frames of 112 pixels, random weights, one
thread, process time, the median of pairs of (plain forward, method). Descriptions, layouts and proofs are made before:
they are paid once for inputs of a shape. GradCAM is given a reshape that is written by hand for each model.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import timm
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

import captum_vit as cv
from tests.benchmarks.cost import TARGET, ratio

METHODS: dict[str, Callable[[nn.Module], cv.TokenAttribution]] = {
    "LayerCDAM": cv.LayerCDAM,
    "DecompX": cv.DecompX,
    "PLUS(DecompX)": lambda model: cv.PLUS(cv.DecompX(model)),
    "CAT": cv.CAT,
    "FullGrad, frozen": lambda model: cv.FullGrad(model, rule="frozen"),
}


class Subject(NamedTuple):
    """A model, its input, and what grad-cam needs to know of it."""

    model: nn.Module
    x: Tensor
    layer: nn.Module
    reshape: Callable[[Tensor], Tensor]


class Logits(nn.Module):
    """The tensor that grad-cam wants."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x).logits
        return logits


def swin(batch: int) -> Subject:
    model = timm.create_model("swin_tiny_patch4_window7_224").eval()
    norm = model.layers[-1].blocks[-1].norm1
    return Subject(model, torch.randn(batch, 3, 224, 224), norm, lambda tokens: tokens.movedim(-1, 1))


def film(batch: int) -> Subject:
    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
    model = Logits(
        VideoMAEForVideoClassification(VideoMAEConfig(image_size=112, num_frames=16, num_labels=10, **sizes))
    ).eval()
    norm = model.model.videomae.encoder.layer[-1].layernorm_before
    x = torch.randn(batch, 16, 3, 112, 112)
    return Subject(model, x, norm, lambda tokens: tokens.mT.unflatten(2, (8, 7, 7)))


def grad_cam(subject: Subject) -> Callable[[Tensor], object]:
    def explain(x: Tensor) -> object:
        with GradCAM(subject.model, [subject.layer], reshape_transform=subject.reshape) as cam:
            return cam(x, targets=[ClassifierOutputTarget(TARGET)] * len(x))

    return explain


def measured(subject: Subject, repeats: int) -> dict[str, float]:
    """By row the ratio."""
    rows: dict[str, Callable[[Tensor], object]] = {
        name: partial(make(subject.model).attribute, target=TARGET) for name, make in METHODS.items()
    }
    rows["grad-cam GradCAM"] = grad_cam(subject)
    for explain in rows.values():
        explain(subject.x)
    return {name: ratio(subject.model, explain, subject.x, repeats) for name, explain in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    found = [measured(subject(options.batch), options.repeats) for subject in (swin, film)]
    print("| | Swin-T | VideoMAE-S |\n|---|--:|--:|")
    for name in found[0]:
        print(f"| {name} | {' | '.join(f'{column[name]:.2f}' for column in found)} |", flush=True)


if __name__ == "__main__":
    main()
