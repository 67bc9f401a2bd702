"""The demo's classifiers of digits whose heads read all patches, and its Swin: trained, and scenes that they know."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from captum_vit.demo import demo_swin, demo_vit, digit_scenes
from tests.models.table import TRAINED, Case, case

SWIN = "digits, Swin"


def digits(build: Callable[[], nn.Module]) -> Case:
    scenes = digit_scenes(3, 2)
    return Case(build(), scenes.images, target=scenes.digits[:, 0].tolist())


for pooling in ("mean", "attention"):
    case(f"digits, {pooling} pooling", TRAINED)(partial(digits, partial(demo_vit, pooling=pooling)))
case(SWIN, TRAINED)(partial(digits, demo_swin))
