"""Slow twins: every metric once more, for one image, in loops as its paper writes it, in float64.

Nothing here imports `quantus_metrics`. A twin takes a function from an image (C, H, W) to scores (n_classes,), so
that it asks for one image at a time, and maps of patches (h, w) or of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Model = Callable[[np.ndarray], np.ndarray]


def blackened(image: np.ndarray, relevance: np.ndarray, n_gone: int, colour: float, least_first: bool = False):
    """The image without its `n_gone` most (or least) important patches."""
    height, width = image.shape[1] // relevance.shape[0], image.shape[2] // relevance.shape[1]
    places = [(r, c) for r in range(relevance.shape[0]) for c in range(relevance.shape[1])]
    places.sort(key=lambda rc: relevance[rc] if least_first else -relevance[rc])
    left = image.copy()
    for r, c in places[:n_gone]:
        for y in range(r * height, (r + 1) * height):
            for x in range(c * width, (c + 1) * width):
                left[:, y, x] = colour
    return left


def n_parts(fraction: float, relevance: np.ndarray) -> int:
    return math.floor(fraction * relevance.size + 0.5)


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = [math.exp(one - max(logits)) for one in logits]
    return np.array([one / sum(powers) for one in powers])


def aopc(model: Model, image, target, relevance, steps: Sequence[float], colour: float) -> float:
    total = 0.0
    for k in steps:
        before = probabilities(model(image))[target]
        after = probabilities(model(blackened(image, relevance, n_parts(k, relevance), colour)))[target]
        total += before - after
    return total / len(steps)


def log_odds(model: Model, image, target, relevance, steps: Sequence[float], colour: float) -> float:
    total = 0.0
    for k in steps:
        before = probabilities(model(image))[target]
        after = probabilities(model(blackened(image, relevance, n_parts(k, relevance), colour)))[target]
        total += math.log(before / after)
    return -total / len(steps)


def perturbation_auc(model: Model, image, label, relevance, steps, colour: float, least_first: bool) -> float:
    accuracy = []
    for k in steps:
        scores = model(blackened(image, relevance, n_parts(k, relevance), colour, least_first))
        accuracy.append(1.0 if list(scores).index(max(scores)) == label else 0.0)
    area = 0.0
    for i in range(1, len(steps)):
        area += (steps[i] - steps[i - 1]) * (accuracy[i] + accuracy[i - 1]) / 2
    return 100 * area


def compactness(relevance: np.ndarray, threshold: float, absolute: bool) -> float:
    values = [float(one) for one in relevance.flatten()]
    most = max(abs(one) if absolute else one for one in values)
    return sum(1 for one in values if abs(one) < threshold * most) / len(values)
