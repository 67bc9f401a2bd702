"""What the demo model of parts can do, and what moves its logits: measured, no method of explanation involved."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from captum_vit.demo.evaluation import share
from captum_vit.demo.parts.drawing import N_OBJECTS, N_PARTS
from captum_vit.demo.parts.scenes import CLASSES, part_scenes

TEST_SEED = 2**31  # the card's held-out scenes; another seed draws others


class Named(NamedTuple):
    """How often the class is named where only some parts are left, drawn for each scene."""

    left: int
    accuracy: float
    best: float  # of whoever knows the classes: one of those that have the parts that are left
    n: int


class Losses(NamedTuple):
    """What the logit of the class loses on average, over ``n`` scenes, when something is left out."""

    part: float
    object: float
    n: int


def evaluate(model: nn.Module, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> list[Named]:
    """How often the model names the class of ``n`` scenes, with all parts and with ever fewer."""
    scenes = part_scenes(n, split, seed)
    order = torch.rand(n, N_PARTS, generator=Generator().manual_seed(seed)).argsort(1)
    found = []
    for left in range(N_PARTS, 0, -1):
        seen = order < left
        named = _logits(model, scenes.without(parts=~seen).images).argmax(1) == scenes.label
        fits = ((scenes.kinds[:, None] == CLASSES) | ~seen[:, None]).all(2).sum(1)  # how many classes have these parts
        found.append(Named(left, share(named), (1 / fits).mean().item(), n))
    return found


def losses_of(model: nn.Module, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> Losses:
    """What the logit of the class loses without each part, and without each object beside the figure."""
    scenes = part_scenes(n, split, seed)

    def logit(images: Tensor) -> Tensor:  # shape: (B,)
        return _logits(model, images).gather(1, scenes.label[:, None]).squeeze(1)

    whole = logit(scenes.images)
    parts = [(whole - logit(scenes.without(parts=one).images)).mean() for one in torch.eye(N_PARTS).bool()]
    objects = [(whole - logit(scenes.without(objects=one).images)).mean() for one in torch.eye(N_OBJECTS).bool()]
    return Losses(torch.stack(parts).mean().item(), torch.stack(objects).mean().item(), n)


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(batch) for batch in images.split(100)])
