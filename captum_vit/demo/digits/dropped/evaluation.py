"""What a classifier of digit scenes can do where patches are missing."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from captum_vit.demo.digits.scenes import digit_scenes
from captum_vit.demo.evaluation import TEST_SEED, Accuracy, accuracy
from captum_vit.trace.removal.without import Without
from captum_vit.trace.run.state import checked_inputs, undisturbed

SHARES = (0.0, 0.25, 0.5)


class Thinned(NamedTuple):
    """Held-out accuracies where a share of the patches, drawn for each scene, is out of the sequence."""

    gone: float
    accuracy: Accuracy


def evaluate_thinned(model: nn.Module, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> list[Thinned]:
    """How often the model names the digits of ``n`` scenes of one and ``n`` of two, whole and with patches missing."""

    def shown(gone: float, n_digits: int) -> tuple[Tensor, Tensor]:
        scenes = digit_scenes(n, n_digits, split, seed)
        lot = Generator().manual_seed(seed)
        return torch.cat([_thinned(model, images, gone, lot) for images in scenes.images.split(100)]), scenes.digits

    return [Thinned(gone, accuracy(partial(shown, gone))) for gone in SHARES]


def _thinned(model: nn.Module, images: Tensor, gone: float, lot: Generator) -> Tensor:  # shape: (B, 10)
    """The logits of scenes, each without its own random share of patches."""
    with undisturbed(model):
        without = Without(model, checked_inputs(images, model), (), "drop")
        places = torch.rand(len(images), 64, generator=lot).argsort(1) < round(64 * gone)
        return without(torch.arange(len(images)), places)
