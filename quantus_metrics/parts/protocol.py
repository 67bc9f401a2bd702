"""The protocol: all tests of a method on one world of parts, and the three properties that they sum up to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from quantus_metrics.bridge import ExplainFunc, check_explains, to_pixels, to_tensor
from quantus_metrics.metrics.batch import check_maps, one_channel
from quantus_metrics.statistics import Summary, summarise

from .effects import Effects
from .scores import (
    controlled_data,
    deletion,
    distractibility,
    important,
    preservation,
    relevance_of,
    rivals,
    single_deletion,
    target_sensitivity,
)

THRESHOLDS = torch.linspace(0.01, 0.5, 80)


@dataclass(frozen=True)
class PartTests:
    """The scores of a method in each test, and what they sum up to; all from 0 to 1, higher is better.

    Args:
        scores: by test, one for each scene whose class the model names; NaN where a test has none.
        threshold: the share of the map that makes a part important. Of 80, it is the one with the best completeness.
    """

    scores: dict[str, Tensor]
    threshold: float

    def mean(self, test: str) -> float:
        """Over the scenes that have a score."""
        return self.scores[test].nanmean().item()

    def summary(self, test: str, confidence: float = 0.95, seed: int = 0) -> Summary:
        """The mean of a test, and its bootstrap interval over scenes."""
        return summarise(self.scores[test].numpy(), confidence=confidence, seed=seed)

    @property
    def completeness(self) -> float:
        """Does the map name all that counts, and nothing else? Half of it is what it leaves out that does not count."""
        enough = (self.mean("controlled data") + self.mean("preservation") + self.mean("deletion")) / 3
        return (enough + self.mean("distractibility")) / 2

    @property
    def correctness(self) -> float:
        """Does it order the parts by what they count for?"""
        return self.mean("single deletion")

    @property
    def contrastivity(self) -> float:
        """Does it tell the reasons of one class from those of another?"""
        return self.mean("target sensitivity")

    @property
    def score(self) -> float:
        """The mean of the three."""
        return (self.completeness + self.correctness + self.contrastivity) / 3

    def __str__(self) -> str:
        rows = [(test, str(self.summary(test))) for test in self.scores]
        sums = [
            (name, f"{getattr(self, name):.4g}") for name in ("completeness", "correctness", "contrastivity", "score")
        ]
        return "\n".join(["| test | score |", "|---|--:|", *(f"| {name} | {text} |" for name, text in [*rows, *sums])])


def part_tests(explain: ExplainFunc, model: nn.Module, effects: Effects) -> PartTests:
    """Compare a method's maps with what interventions show, by the protocol of FunnyBirds.

    - *single deletion*: the order of the parts in the map, and by what the class loses without each.
    - *preservation*, *deletion*: is the answer the same with only the important parts, and another one without them?
    - *controlled data*: do the important parts tell the class from all others?
    - *distractibility*: parts and objects beside the figure that do not count are not important.
    - *target sensitivity*: the parts that the figure shares with another class are relevant for that class.

    A part has the sum of the map over its pixels and two around them. It is important if that is more than a share of
    the sum of the whole map; of 80 shares from 1 to 50 % the one is taken at which completeness is best.

    Costs     three maps for each scene whose class the model names. No other passes: `part_effects` made them, once.

    Args:
        explain: as `explain_func` makes it.
        model: the one that `part_effects` asked.
        effects: what it answered.

    Departs   only scenes count whose class the model names; the authors test the answer that it gives in some tests.
              The threshold is the best one of the method on these very scenes, as theirs is.

    Raises:
        InputError: no function that makes maps; maps that are constant, not finite, or not one for each scene.

    Example:
        >>> model, scenes = demo_parts(), part_scenes(100)
        >>> effects = part_effects(model, scenes)
        >>> print(part_tests(explain_func(METHODS["DecompX"]), model, effects))  # doctest: +SKIP

    Reference: Hesse et al., FunnyBirds: A Synthetic Vision Dataset for a Part-Based Analysis of Explainable AI Methods,
    section 4, and the authors' code.
    """
    check_explains(explain)
    scenes, right = effects.scenes, effects.right

    def maps_of(classes: Tensor) -> Tensor:  # shape: (B, 1, H, W), zero for scenes that do not count
        found = np.asarray(explain(model=model, inputs=scenes.images[right].numpy(), targets=classes[right].numpy()))
        size = (scenes.images.shape[-2], scenes.images.shape[-1])
        check_maps(one_channel(found))
        maps = torch.zeros(len(right), 1, *size, dtype=torch.float64)
        maps[right] = to_pixels(to_tensor(found).double(), (int(right.sum()), 1, *size))
        return maps

    return part_tests_of(maps_of, effects)


def part_tests_of(
    maps_of: Callable[[Tensor], Tensor],  # classes (B,) to maps (B, 1, H, W)
    effects: Effects,
) -> PartTests:
    """`part_tests` for maps of pixels of all scenes; ``part_tests_of(effects.map, effects)`` is what can be reached."""
    scenes, right = effects.scenes, effects.right
    others, shared = (of_class[scenes.label] for of_class in rivals(scenes.classes))
    masks, n_parts = torch.cat([scenes.part_masks, scenes.object_masks], 1), scenes.part_masks.shape[1]

    maps = maps_of(scenes.label).double()
    relevance = relevance_of(maps, masks)
    chosen = important(relevance, maps, THRESHOLDS.double())
    of_threshold = {
        "controlled data": controlled_data(chosen[..., :n_parts], effects),
        "preservation": preservation(chosen[..., :n_parts], effects),
        "deletion": deletion(chosen[..., :n_parts], effects),
        "distractibility": distractibility(chosen, effects),
    }
    named = torch.stack([relevance_of(maps_of(others[:, i]).double(), scenes.part_masks) for i in (0, 1)], 1)
    scores = {
        "single deletion": single_deletion(relevance[:, :n_parts], effects)[right],
        "target sensitivity": target_sensitivity(named, others, shared, effects)[right],
    }
    tried = [
        PartTests(scores | {test: found[t, right] for test, found in of_threshold.items()}, share)
        for t, share in enumerate(THRESHOLDS.tolist())
    ]
    return max(tried, key=lambda found: found.completeness)
