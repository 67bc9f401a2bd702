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


def sigmoids(logits: np.ndarray) -> np.ndarray:
    """Of several labels, each by itself; of one logit those of its two classes."""
    if len(logits) == 1:
        logits = np.array([-logits[0], logits[0]])
    return np.array([1 / (1 + math.exp(-one)) for one in logits])


def read_along(model: Model, image, relevance, steps: Sequence[float], colour: float, read, least_first=False):
    """What `read` makes of the scores of the whole image, and of it at each step."""
    gone = (blackened(image, relevance, n_parts(k, relevance), colour, least_first) for k in steps)
    return read(model(image)), [read(model(each)) for each in gone]


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


def bilinear(relevance: np.ndarray, height: int, width: int) -> np.ndarray:
    """The map as a picture of more pixels: each lies between the four nearest patch centres."""
    rows, columns = relevance.shape
    large = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            r = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            c = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            r0, c0 = int(r), int(c)
            r1, c1 = min(r0 + 1, rows - 1), min(c0 + 1, columns - 1)
            top = (1 - (c - c0)) * relevance[r0, c0] + (c - c0) * relevance[r0, c1]
            bottom = (1 - (c - c0)) * relevance[r1, c0] + (c - c0) * relevance[r1, c1]
            large[y, x] = (1 - (r - r0)) * top + (r - r0) * bottom
    return large


def nearest(relevance: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.array(
        [[relevance[y * len(relevance) // height, x * relevance.shape[1] // width] for x in range(width)]
         for y in range(height)]
    )  # fmt: skip


def segmentation_totals(maps: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """Pixel accuracy and mIoU over all images, with a mask of −1 where nothing is known."""
    correct, labelled, inter, union = 0, 0, [0, 0], [0, 0]
    for relevance, mask in zip(maps, masks, strict=True):
        large = bilinear(relevance, *mask.shape)
        scaled = (large - large.min()) / (large.max() - large.min())
        threshold = scaled.mean()
        for y in range(mask.shape[0]):
            for x in range(mask.shape[1]):
                if mask[y, x] < 0:
                    continue
                said = 1 if scaled[y, x] > threshold else 0
                labelled += 1
                correct += said == mask[y, x]
                for one in (0, 1):
                    inter[one] += said == one and mask[y, x] == one
                    union[one] += said == one or mask[y, x] == one
    return correct / labelled, (inter[0] / union[0] + inter[1] / union[1]) / 2


def average_precision(scores: Sequence[float], truths: Sequence[bool]) -> float:
    """Over the distinct thresholds, from strict to lax: precision times the recall gained."""
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [truth for score, truth in zip(scores, truths, strict=True) if score >= threshold]
        gained = sum(taken) / sum(truths)
        area += (gained - recall) * sum(taken) / len(taken)
        recall = gained
    return area


def two_class_ap(relevance: np.ndarray, mask: np.ndarray) -> float:
    large = bilinear(relevance, *mask.shape)
    scaled = (large - large.min()) / (large.max() - large.min())
    known = mask >= 0
    scores = [*(1 - scaled[known]), *scaled[known]]
    return average_precision(scores, [*(mask[known] == 0), *(mask[known] == 1)])


def object_ap(relevance: np.ndarray, mask: np.ndarray) -> float:
    known = mask >= 0
    return average_precision(nearest(relevance, *mask.shape)[known], mask[known] == 1)


def positive_share(relevance: np.ndarray, cell: np.ndarray) -> float:
    large, inside, whole = nearest(relevance, *cell.shape), 0.0, 0.0
    for y in range(cell.shape[0]):
        for x in range(cell.shape[1]):
            positive = max(large[y, x], 0.0)
            whole += positive
            inside += positive if cell[y, x] else 0.0
    return inside / whole


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    together = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return together / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def box_curve(model: Model, image, target: int, relevance, boxes: np.ndarray, colour: float) -> list[float]:
    """Of each size the correlation over its boxes (sizes, boxes, 3), of side, top and left."""
    large, curve = nearest(relevance, *image.shape[1:]), []
    for of_one_size in boxes:
        sums, losses = [], []
        for side, top, left in of_one_size:
            without, total = image.copy(), 0.0
            for y in range(top, top + side):
                for x in range(left, left + side):
                    without[:, y, x] = colour
                    total += large[y, x]
            sums.append(total)
            losses.append(model(image)[target] - model(without)[target])
        curve.append(pearson(sums, losses))
    return curve


def fidelity(model: Model, image, target: int, relevance, steps: Sequence[float], colour: float) -> float:
    """Area under the score when unimportant parts leave first, less that when important parts do; over percent."""
    areas = []
    for least_first in (True, False):
        scores = [model(blackened(image, relevance, n_parts(k, relevance), colour, least_first))[target] for k in steps]
        areas.append(
            sum(100 * (steps[i] - steps[i - 1]) * (scores[i] + scores[i - 1]) / 2 for i in range(1, len(steps)))
        )
    return areas[0] - areas[1]
