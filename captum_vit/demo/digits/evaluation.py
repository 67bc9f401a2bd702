"""What a demo classifier can do, and what its logits are about: measured, no method of explanation involved."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_vit.demo.digits.scenes import digit_scenes

TEST_SEED = 2**31  # the card's test scenes; another seed draws others


class Accuracy(NamedTuple):
    """Held-out accuracies, each over ``n`` scenes."""

    single: float  # scenes of one digit: the largest logit names it
    both: float  # scenes of two digits: the two largest logits name both
    n: int


class Effect(NamedTuple):
    """What a digit's logit loses when a digit is left unwritten, over ``n`` scenes of two digits."""

    own: float  # when it is the digit itself
    other: float  # when it is the other one; negative where the logit rises
    other_share: float  # mean |other| by mean |own|; 0: the logit is about its digit alone
    n: int


def evaluate(model: nn.Module, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> Accuracy:
    """How often the model names the digits of ``n`` scenes of one digit and of ``n`` scenes of two."""

    def share_named(n_digits: int) -> float:
        scenes = digit_scenes(n, n_digits, split, seed)
        named = _logits(model, scenes.images).topk(n_digits).indices.sort(1).values == scenes.digits.sort(1).values
        return named.all(1).float().mean().item()

    return Accuracy(share_named(1), share_named(2), n)


def effect(model: nn.Module, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> Effect:
    """Whose strokes move a digit's logit: each scene is drawn whole, without the digit, and without the other.

    That a map for a digit should lie on this digit is true of a model only as far as the other digit's
    strokes leave the logit alone.
    """
    scenes = digit_scenes(n, 2, split, seed)
    digit = scenes.digits[:, :1]

    def logit(without: int | None) -> Tensor:  # shape: (B,)
        images = digit_scenes(n, 2, split, seed, without=without).images
        return _logits(model, images).gather(1, digit).squeeze(1)

    whole = logit(None)
    own, other = whole - logit(0), whole - logit(1)
    return Effect(own.mean().item(), other.mean().item(), (other.abs().mean() / own.abs().mean()).item(), n)


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(batch) for batch in images.split(100)])
