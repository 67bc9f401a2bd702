"""The demo's digit classifiers whose heads read all patches: trained weights, and scenes that they know."""

from __future__ import annotations

from functools import partial

from captum_vit.demo import demo_vit, digit_scenes
from tests.models.table import TRAINED, Case, case


def digits(pooling: str) -> Case:
    scenes = digit_scenes(3, 2)
    return Case(demo_vit(pooling=pooling), scenes.images, target=scenes.digits[:, 0].tolist())


for pooling in ("mean", "attention"):
    case(f"digits, {pooling} pooling", TRAINED)(partial(digits, pooling))
