"""What the CDAM family costs: process time as a ratio to one plain forward pass of the same batch.

    python -m tests.benchmarks.cdam [--model vit_small_patch16_224] [--batch 4] [--repeats 9]

One torch thread, 1,000 classes, 50 steps and samples; medians over pairs of (plain forward, method), as in cost.py.
"General" is the route that every model can take, chosen here by asking autograd for what it does anyway.
"""

from __future__ import annotations

import argparse

import timm
import torch
from captum.attr import LayerGradientXActivation, LayerIntegratedGradients
from torch import Tensor, nn

import captum_vit as cv
from tests.benchmarks.cost import Explain, ratio

AIMS = {"LayerCDAM": 1.0, "LayerCDAM.all_classes": 1.3, "LayerSmoothCDAM": 1.35, "LayerIntegratedCDAM": 1.05}
GENERAL = {"grad_kwargs": {"allow_unused": True}}


def candidates(model: nn.Module, target: int) -> dict[str, Explain]:
    """Ours by both routes, and Captum's."""
    norm = model.blocks[-1].norm1
    cdam, smooth, integrated = cv.LayerCDAM(model), cv.LayerSmoothCDAM(model), cv.LayerIntegratedCDAM(model)
    captum, captum_path = LayerGradientXActivation(model, norm), LayerIntegratedGradients(model, norm)

    def path(x: Tensor) -> object:
        return captum_path.attribute(x, target=target, n_steps=50, internal_batch_size=len(x))

    return {
        "LayerCDAM": lambda x: cdam.attribute(x, target=target),
        "LayerCDAM.all_classes": lambda x: cdam.all_classes(x),
        "LayerSmoothCDAM": lambda x: smooth.attribute(x, target=target),
        "LayerIntegratedCDAM": lambda x: integrated.attribute(x, target=target),
        "LayerCDAM.value_and_key_terms": lambda x: cdam.value_and_key_terms(x, target),
        "LayerCDAM, general": lambda x: cdam.attribute(x, target=target, **GENERAL),
        "captum LayerGradientXActivation": lambda x: captum.attribute(x, target=target),
        "LayerSmoothCDAM, general": lambda x: smooth.attribute(x, target=target, **GENERAL),
        "LayerIntegratedCDAM, general": lambda x: integrated.attribute(x, target=target, **GENERAL),
        "captum LayerIntegratedGradients": path,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224", help="a timm model with CLS pooling")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", nargs="*", help="names of rows; all by default")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model(options.model).eval()
    x = torch.randn(options.batch, 3, *model.patch_embed.img_size)
    print(f"{options.model}, batch {options.batch}, one thread, torch {torch.__version__}: ratio to the plain forward")
    print("| method | ratio | aim |\n|---|---|---|")
    for name, explain in candidates(model, target=3).items():
        if not options.only or name in options.only:
            slow = "general" in name or "Integrated" in name
            found = ratio(model, explain, x, 1 if slow and name not in AIMS else options.repeats)
            print(f"| {name} | {found:.2f} | {AIMS.get(name, '')} |", flush=True)


if __name__ == "__main__":
    main()
