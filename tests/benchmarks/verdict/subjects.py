"""The four trained models, what they are asked, what is known to be right, and the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn

import quantus_metrics as qm
from captum_vit import demo
from captum_vit.demo.reviews import read
from quantus_metrics.metrics import TokenMetric
from quantus_metrics.metrics.pointing import pointing_hits

TENTHS = tuple(k / 10 for k in range(11))
INNER = TENTHS[1:-1]
SEED = 2
TOLERANCE = 4  # pixels beside the digit that count as on it, half a patch
RANDOMISED = 8  # samples of MPRT, which explains each of them once for every block
TRUTH = "on the evidence"
"""Whether the largest relevance lies on what decides; known, since the inputs are generated."""


@dataclass(frozen=True)
class Subject:
    """A model and its samples.

    Args:
        model: takes the inputs, and no more.
        inputs: (S, ...) images or token ids.
        target: (S,) what is explained.
        wrong: (S,) other classes that are in the image too; None for texts.
        masks: (S, 1, H, W), bool, the digit; None for texts.
        points: of maps, whether each points at what decides.
        tests: by name; all read the same samples.
    """

    model: nn.Module
    inputs: Tensor
    target: Tensor
    wrong: Tensor | None
    masks: Tensor | None
    points: Callable[[Tensor], Tensor]
    tests: dict[str, TokenMetric]


def of_curves() -> dict[str, TokenMetric]:
    """Tests that take parts away in the order of a map; texts have them too."""
    return {
        "SRG": qm.SRG(fractions=TENTHS),
        "Accuracy, LIF less MIF": qm.PerturbationAccuracy(score="difference", fractions=INNER),
        "AOPC": qm.AOPC(fractions=TENTHS),
        "LogOdds": qm.LogOdds(fractions=TENTHS),
        "Deletion": qm.Deletion(score="aopc"),
        "Insertion": qm.Insertion(score="aopc"),
        "SaCo": qm.SaCo(),
    }


def of_pictures(patch: int) -> dict[str, TokenMetric]:
    """All tests; `patch` is the side of a cell in pixels."""
    return {
        **of_curves(),
        "Class discrimination": qm.ClassDiscrimination(qm.Fidelity(fractions=TENTHS)),
        "Box sensitivity": qm.BoxSensitivity(sizes=(1, 2, 3), n_boxes=20),
        "IDSDS": qm.IDSDS(),
        "F-Fidelity": qm.FFidelity(score="difference", reads="probability", sizes=(0.1, 0.3, 0.5), n_draws=8),
        "Segmentation, AP": qm.Segmentation(score="ap"),
        "Compactness": qm.Compactness(),
        "MPRT": qm.MPRT(),
        "Completeness": qm.Completeness(patch_size=patch),
    }


def scenes(make: Callable[[], nn.Module], patch: int, n: int) -> Subject:
    """Scenes of two digits, each explained for both."""
    drawn = demo.digit_scenes(-(-n // 2), 2, "test", SEED)
    masks = drawn.masks.flatten(0, 1)[:n]
    return Subject(
        make(),
        drawn.images.repeat_interleave(2, 0)[:n],
        drawn.digits.flatten()[:n],
        drawn.digits.flip(1).flatten()[:n],
        masks.unsqueeze(1),
        lambda maps: pointing_hits(maps, masks[: len(maps)], TOLERANCE),
        of_pictures(patch),
    )


def reviews(n: int) -> Subject:
    """Reviews, half of them with negated opinions, explained for what they say."""
    drawn, tokenizer = demo.generated_reviews(n, seed=SEED), demo.demo_bert_tokenizer()
    tokens = read(drawn, tokenizer)
    return Subject(
        qm.wrap_text(demo.demo_bert(), tokenizer).eval(),
        tokens.ids,
        drawn.labels,
        None,
        None,
        lambda maps: tokens.first(len(maps)).points_at_rationale(maps),
        of_curves(),
    )


SUBJECTS: dict[str, Callable[[int], Subject]] = {
    "CLS": partial(scenes, demo.demo_vit, 8),
    "mean": partial(scenes, partial(demo.demo_vit, pooling="mean"), 8),
    "Swin": partial(scenes, demo.demo_swin, 8),
    "words": reviews,
}


@cache
def subject(name: str, n: int) -> Subject:
    """One of them, made once in each process."""
    torch.manual_seed(SEED)
    return SUBJECTS[name](n)


def arrays(one: Subject, rows: slice) -> dict[str, np.ndarray | None]:
    """Samples as a metric takes them."""
    wrong, masks = (None if x is None else x[rows].numpy() for x in (one.wrong, one.masks))
    given = {"x_batch": one.inputs[rows].numpy(), "y_batch": one.target[rows].numpy()}
    return {**given, "custom_batch": wrong, "s_batch": masks}
