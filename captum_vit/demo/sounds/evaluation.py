"""What the demo sound model can do, and what its logits are about: measured, no method of explanation involved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_vit.demo.evaluation import TEST_SEED, Accuracy, Effect, accuracy, effect_of
from captum_vit.demo.sounds.clips import Clips, tone_clips


def evaluate(model: nn.Module, seed: int = TEST_SEED, n: int = 1000, split: str = "test") -> Accuracy:
    """How often the model names the tones of ``n`` clips of one tone and of ``n`` clips of two."""

    def shown(n_tones: int) -> tuple[Tensor, Tensor]:
        clips = tone_clips(n, n_tones, split, seed)
        return _logits(model, clips), clips.kinds

    return accuracy(shown)


def effect(model: nn.Module, seed: int = TEST_SEED, n: int = 1000, split: str = "test") -> Effect:
    """Which tone moves a tone's logit, over ``n`` clips of two: each sounds whole, without the tone, and without the
    other.
    """
    kind = tone_clips(n, 2, split, seed).kinds[:, :1]

    def logit(without: int | None) -> Tensor:  # shape: (B,)
        return _logits(model, tone_clips(n, 2, split, seed, without=without)).gather(1, kind).squeeze(1)

    return effect_of(logit(None), logit(0), logit(1))


@torch.no_grad()
def _logits(model: nn.Module, clips: Clips) -> Tensor:
    return torch.cat([model(batch).logits for batch in clips.inputs.split(100)])
