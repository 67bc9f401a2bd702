"""Train the demo model of parts: ``python -m captum_vit.demo.parts.train --out FILE``.

Classification of whole scenes, by cross-entropy: no masks, no supervision of patches or parts. Six scenes of ten are
drawn without some of their parts, each part with a chance of its own scene, from none to all; objects beside the figure
are left out with a chance of 0.3. So the interventions of the tests show the model nothing that it was not trained on:
where parts are missing that would tell two classes apart, it learns that either may be right.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from captum_vit.demo.parts.card import card
from captum_vit.demo.parts.drawing import N_OBJECTS, N_PARTS
from captum_vit.demo.parts.evaluation import Losses, Named, evaluate, losses_of
from captum_vit.demo.parts.model import demo_parts
from captum_vit.demo.parts.scenes import part_scenes
from captum_vit.demo.training import Recipe

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


def losses(model: VisionTransformer, args: argparse.Namespace) -> Callable[[int], Tensor]:
    """The loss of each step, on scenes of its own."""

    def loss_at(step: int) -> Tensor:
        seed = args.seed * 10**8 + step
        scenes, lot = part_scenes(args.batch, "train", seed), Generator().manual_seed(seed)
        chance = torch.rand(args.batch, 1, generator=lot) * (torch.rand(args.batch, 1, generator=lot) < args.thinned)
        parts = torch.rand(args.batch, N_PARTS, generator=lot) < chance
        objects = torch.rand(args.batch, N_OBJECTS, generator=lot) < args.fewer
        return F.cross_entropy(model(scenes.without(parts, objects).images), scenes.label)

    return loss_at


def measure(model: VisionTransformer, seed: int, n: int, split: str) -> tuple[list[Named], Losses]:
    """All that the card says."""
    return evaluate(model, abs(seed), n, split), losses_of(model, abs(seed), n, split)


def options(parser: argparse.ArgumentParser) -> None:
    """How much is left out."""
    add = parser.add_argument
    add("--thinned", type=float, default=0.6, help="share of the scenes from which parts are left out")
    add("--fewer", type=float, default=0.3, help="chance of each object beside the figure to be left out")


DEFAULTS = {
    "steps": 2500, "batch": 40, "warmup": 100, "lr": 2e-3, "lr_rest": 2e-3, "muon": False, "ema": 0.99,
    "test": 2000, "every": 250,
}  # fmt: skip
RECIPE = Recipe(
    script="captum_vit.demo.parts.train",
    about="Train the demo model of parts.",
    model=lambda args: demo_parts(pretrained=False),
    losses=losses,
    measure=measure,
    card=card,
    blocks="blocks",
    defaults=DEFAULTS,
    options=options,
)

if __name__ == "__main__":
    RECIPE.main()
