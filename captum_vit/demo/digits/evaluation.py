"""What a demo classifier can do, and what its logits are about: measured, no method of explanation involved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_vit.demo.digits.scenes import digit_scenes
from captum_vit.demo.evaluation import TEST_SEED, Accuracy, Effect, accuracy, effect_of


def evaluate(model: nn.Module, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> Accuracy:
    """How often the model names the digits of ``n`` scenes of one digit and of ``n`` scenes of two."""

    def shown(n_digits: int) -> tuple[Tensor, Tensor]:
        scenes = digit_scenes(n, n_digits, split, seed)
        return _logits(model, scenes.images), scenes.digits

    return accuracy(shown)


def effect(model: nn.Module, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> Effect:
    """Whose strokes move a digit's logit, over ``n`` scenes of two: each is drawn whole, without the digit, and
    without the other.
    """
    digit = digit_scenes(n, 2, split, seed).digits[:, :1]

    def logit(without: int | None) -> Tensor:  # shape: (B,)
        images = digit_scenes(n, 2, split, seed, without=without).images
        return _logits(model, images).gather(1, digit).squeeze(1)

    return effect_of(logit(None), logit(0), logit(1))


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(batch) for batch in images.split(100)])
