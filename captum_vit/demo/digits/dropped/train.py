"""Train the demo classifier on with patches missing: ``python -m captum_vit.demo.digits.dropped.train --out FILE``.

It goes on from ``demo_vit()``, with the same loss on the same kind of scenes. Of each batch a share of the patches
between none and half, drawn anew, is taken out of the sequence before the first block; for each scene its own, at
random (timm's ``PatchDropout``). Tests of explanations that take patches away then show the model nothing it was not
trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from captum_vit.demo.digits.dropped.card import card
from captum_vit.demo.digits.dropped.evaluation import Thinned, evaluate_thinned
from captum_vit.demo.digits.evaluation import effect
from captum_vit.demo.digits.model import demo_vit
from captum_vit.demo.digits.scenes import digit_scenes
from captum_vit.demo.digits.train import every_digit
from captum_vit.demo.evaluation import Effect
from captum_vit.demo.training import Recipe
from captum_vit.extras import extra

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


def losses(model: VisionTransformer, args: argparse.Namespace) -> Callable[[int], Tensor]:
    """The loss of each step, on scenes of its own without some of their patches."""
    with extra("demo"):
        from timm.layers import PatchDropout

    thinning = PatchDropout(num_prefix_tokens=model.num_prefix_tokens).eval()  # as the model is, until it is trained
    model.patch_drop = thinning

    def loss_at(step: int) -> Tensor:
        seed = args.seed * 10**8 + step
        scenes = digit_scenes(args.batch, (1, 3), "train", seed)
        torch.manual_seed(seed)
        thinning.prob = args.most * torch.rand(()).item()
        return every_digit(model(scenes.images), scenes.digits)

    return loss_at


def measure(model: VisionTransformer, seed: int, n: int, split: str) -> tuple[list[Thinned], list[Thinned], Effect]:
    """All that the card says: this model and ``demo_vit()`` with patches missing, and whose strokes move a logit."""
    thinned, plain = (evaluate_thinned(each, seed, n, split) for each in (model, demo_vit()))
    return thinned, plain, effect(model, seed, n, split)


def options(parser: argparse.ArgumentParser) -> None:
    """How much goes."""
    parser.add_argument("--most", type=float, default=0.5, help="the largest share of patches that is taken out")


DEFAULTS = {
    "steps": 2000, "batch": 48, "warmup": 50, "lr": 1e-3, "lr_rest": 1e-3, "muon": False, "ema": 0.98,
    "test": 2000, "every": 500,
}  # fmt: skip
RECIPE = Recipe(
    script="captum_vit.demo.digits.dropped.train",
    about="Train the demo classifier on with patches missing.",
    model=lambda args: demo_vit(),
    losses=losses,
    measure=measure,
    card=card,
    blocks="blocks",
    defaults=DEFAULTS,
    options=options,
)

if __name__ == "__main__":
    RECIPE.main()
