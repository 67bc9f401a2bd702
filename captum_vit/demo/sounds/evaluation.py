"""What the demo sound model can do, and what its logits are about: measured, no method of explanation involved."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_vit.demo.sounds.clips import Clips, tone_clips

TEST_SEED = 2**31  # the card's test clips; another seed draws others


class Accuracy(NamedTuple):
    """Held-out accuracies, each over ``n`` clips."""

    single: float  # clips of one tone: the largest logit names it
    both: float  # clips of two tones: the two largest logits name both
    n: int


class Effect(NamedTuple):
    """What a tone's logit loses when a tone is left out, over ``n`` clips of two tones."""

    own: float  # when it is the tone itself
    other: float  # when it is the other one; negative where the logit rises
    other_share: float  # mean |other| by mean |own|; 0: only its tone moves the logit
    n: int


def evaluate(model: nn.Module, seed: int = TEST_SEED, n: int = 1000, split: str = "test") -> Accuracy:
    """How often the model names the tones of ``n`` clips of one tone and of ``n`` clips of two."""

    def share_named(n_tones: int) -> float:
        clips = tone_clips(n, n_tones, split, seed)
        named = _logits(model, clips).topk(n_tones).indices.sort(1).values == clips.kinds.sort(1).values
        return named.all(1).float().mean().item()

    return Accuracy(share_named(1), share_named(2), n)


def effect(model: nn.Module, seed: int = TEST_SEED, n: int = 1000, split: str = "test") -> Effect:
    """Which tone moves a tone's logit: each clip sounds whole, without the tone, and without the other.

    That a map for a tone should lie on this tone is true of a model only as far as the other tone does not move the
    logit.
    """
    whole = tone_clips(n, 2, split, seed)
    kind = whole.kinds[:, :1]

    def logit(clips: Clips) -> Tensor:  # shape: (B,)
        return _logits(model, clips).gather(1, kind).squeeze(1)

    own, other = (logit(whole) - logit(tone_clips(n, 2, split, seed, without=left_out)) for left_out in (0, 1))
    return Effect(own.mean().item(), other.mean().item(), (other.abs().mean() / own.abs().mean()).item(), n)


@torch.no_grad()
def _logits(model: nn.Module, clips: Clips) -> Tensor:
    return torch.cat([model(batch).logits for batch in clips.inputs.split(100)])
