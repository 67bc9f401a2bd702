"""Train the demo image-text model: ``python -m captum_vit.demo.captions.train --out FILE``.

Scenes against captions, each pair by itself (the sigmoid loss of SigLIP): is this caption true of this scene? A
caption names one digit of its scene, or several, or all; the others of a batch are true of it too wherever the scene
shows all that they name, and count as true. So no caption is taken for false that is not.

The vision tower starts from the demo classifier (``demo_vit()``), the text tower from random weights.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.demo.captions.card import card
from captum_vit.demo.captions.evaluation import Retrieval, effect, retrieval
from captum_vit.demo.captions.model import demo_clip, demo_clip_tokenizer
from captum_vit.demo.captions.sentences import caption, is_true_of, some_of
from captum_vit.demo.captions.start import start_from_digits
from captum_vit.demo.digits.model import demo_vit
from captum_vit.demo.digits.scenes import digit_scenes
from captum_vit.demo.evaluation import Effect
from captum_vit.demo.training import Recipe

if TYPE_CHECKING:
    from transformers import CLIPModel


class Pairing(nn.Module):
    """The model with the threshold that the loss needs and retrieval does not."""

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.model = model
        self.bias = nn.Parameter(torch.tensor(0.0))

    def forward(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:  # shape: (B, N)
        said = self.model(pixel_values=images, input_ids=ids, attention_mask=mask)
        return said.logits_per_image.float() + self.bias


def losses(pairing: Pairing, args: argparse.Namespace) -> Callable[[int], Tensor]:
    """The loss of each step, on scenes and captions of its own."""
    words = demo_clip_tokenizer()
    start_from_digits(pairing.model.vision_model, demo_vit())
    pairing.model.set_attn_implementation("eager")  # the fused kernel's bfloat16 backward is slow on CPUs

    def loss_at(step: int) -> Tensor:
        seed = args.seed * 10**8 + step
        scenes, chance = digit_scenes(args.batch, (1, 3), "train", seed), random.Random(seed)
        said = some_of(scenes.digits, chance)
        texts = words([caption(digits, chance) for digits in said], return_tensors="pt", padding=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            logits = pairing(scenes.images, texts["input_ids"], texts["attention_mask"])
        return F.binary_cross_entropy_with_logits(logits, is_true_of(said, scenes.digits).float())

    return loss_at


def measure(model: CLIPModel, seed: int, n: int, split: str) -> tuple[Retrieval, Effect]:
    """All that the card says."""
    return retrieval(model, seed, n, split), effect(model, seed, n, split)


def options(parser: argparse.ArgumentParser) -> None:
    """How it is computed."""
    add = parser.add_argument
    add("--bf16", action=argparse.BooleanOptionalAction, default=True, help="matrix products in bfloat16")


DEFAULTS = {
    "steps": 1200, "batch": 64, "lr": 2e-3, "lr_rest": 1e-3, "ema": 0.995, "test": 5000,
    "every": 500,
}  # fmt: skip
RECIPE = Recipe(
    script="captum_vit.demo.captions.train",
    about="Train the demo image-text model.",
    model=lambda args: Pairing(demo_clip(pretrained=False)).eval(),
    stored=lambda pairing: pairing.model,
    losses=losses,
    measure=measure,
    card=card,
    blocks="layers",
    defaults=DEFAULTS,
    options=options,
)

if __name__ == "__main__":
    RECIPE.main()
