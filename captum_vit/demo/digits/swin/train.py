"""Train the demo Swin: ``python -m captum_vit.demo.digits.swin.train --out FILE``.

All digits of a scene are to be named, each class by itself, as for ``demo_vit()``. Its first stage starts from the
patches and blocks of ``demo_vit()`` (:mod:`captum_vit.demo.digits.swin.start`), and the logits of ``demo_vit()`` are a
second target (distillation): without them a network of windows this small would need many more steps.

No masks, no supervision of patches, and no map has a part in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_vit.demo.digits.model import demo_vit
from captum_vit.demo.digits.scenes import digit_scenes
from captum_vit.demo.digits.swin.card import card
from captum_vit.demo.digits.swin.model import demo_swin
from captum_vit.demo.digits.swin.start import start_from_vit
from captum_vit.demo.digits.train import every_digit, measure
from captum_vit.demo.training import Recipe

if TYPE_CHECKING:
    from timm.models.swin_transformer import SwinTransformer


def untrained(args: argparse.Namespace) -> SwinTransformer:
    """What is trained, of the random weights that the shipped model began with: a teacher's were drawn before them."""
    demo_vit(pretrained=False)
    return demo_swin(pretrained=False)


def losses(model: SwinTransformer, args: argparse.Namespace) -> Callable[[int], Tensor]:
    """The loss of each step, on scenes of its own."""
    teacher = demo_vit()
    start_from_vit(model, teacher)

    def loss_at(step: int) -> Tensor:
        scenes = digit_scenes(args.batch, (1, 3), "train", seed=args.seed * 10**8 + step)
        with torch.no_grad():
            taught = teacher(scenes.images)
        logits = model(scenes.images)
        return every_digit(logits, scenes.digits) + args.distil * F.mse_loss(logits, taught)

    return loss_at


def options(parser: argparse.ArgumentParser) -> None:
    """What the teacher counts."""
    parser.add_argument(
        "--distil", type=float, default=0.02, help="weight of the squared distance from the teacher's logits"
    )


DEFAULTS = {
    "steps": 1400, "batch": 32, "warmup": 100, "lr": 2e-3, "lr_rest": 2e-3, "muon": False, "ema": 0.99,
    "test": 5000, "every": 200,
}  # fmt: skip
RECIPE = Recipe(
    script="captum_vit.demo.digits.swin.train",
    about="Train the demo Swin.",
    model=untrained,
    losses=losses,
    measure=measure,
    card=card,
    blocks="blocks",
    defaults=DEFAULTS,
    options=options,
)

if __name__ == "__main__":
    RECIPE.main()
