"""The single tests: from what a map says of each part, and what interventions show, to a score for each scene.

``B`` counts scenes, ``P`` parts of a figure, ``M`` objects beside it, ``K = P + M``; ``T`` thresholds. All scores are
from 0 to 1, higher is better.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from quantus_metrics.metrics.idsds import single_deletion_correlation

from .effects import Effects, code

RIM = 2  # pixels around a part whose relevance counts as its own
SLIGHT = 0.05  # of a score: who costs less does not count


def relevance_of(
    maps: Tensor,  # shape: (B, 1, H, W)
    masks: Tensor,  # shape: (B, K, H, W)
) -> Tensor:  # shape: (B, K)
    """The sum of a map over each thing, and a rim around it."""
    over = F.max_pool2d(masks.to(maps), 2 * RIM + 1, stride=1, padding=RIM)
    return (maps * over).sum((2, 3))


def important(
    relevance: Tensor,  # shape: (B, K)
    maps: Tensor,  # shape: (B, 1, H, W)
    thresholds: Tensor,  # shape: (T,)
) -> Tensor:  # shape: (T, B, K), bool
    """What has more than a share of the sum of the whole map."""
    return relevance > thresholds[:, None, None] * maps.sum((1, 2, 3))[:, None]


def sufficient_sets(classes: Tensor) -> list[Tensor]:  # shapes: (n, P) bool, for each class
    """The sets of parts of a class that no other class has, without those of which fewer would do."""

    def of(own: Tensor, others: Tensor) -> Iterator[set[int]]:
        found: list[set[int]] = []
        for size in range(1, len(own) + 1):
            for some in map(set, combinations(range(len(own)), size)):
                alone = not (others == own)[:, sorted(some)].all(1).any()
                if alone and not any(smaller < some for smaller in found):
                    found.append(some)
        yield from found

    sets = []
    for number, own in enumerate(classes):
        others = torch.cat([classes[:number], classes[number + 1 :]])
        sets.append(torch.tensor([[p in some for p in range(len(own))] for some in of(own, others)]))
    return sets


def controlled_data(
    chosen: Tensor,  # shape: (T, B, P), bool
    effects: Effects,
) -> Tensor:  # shape: (T, B)
    r"""How much of a set of parts that is enough to know the class the map calls important, of the set that fits best.

    .. math:: \max_S \frac{|S \cap I|}{|S|}
    """
    sets = sufficient_sets(effects.scenes.classes)
    rows = [
        ((chosen[:, b, None] & sets[c]).sum(2) / sets[c].sum(1)).amax(1)
        for b, c in enumerate(effects.scenes.label.tolist())
    ]
    return torch.stack(rows, 1)


def preservation(
    chosen: Tensor,  # shape: (T, B, P), bool
    effects: Effects,
) -> Tensor:  # shape: (T, B)
    """Whether the model says the same when only the important parts are left."""
    return _named(effects, chosen).float()


def deletion(
    chosen: Tensor,  # shape: (T, B, P), bool
    effects: Effects,
) -> Tensor:  # shape: (T, B)
    """Whether the model says something else when the important parts are gone."""
    return 1 - _named(effects, ~chosen).float()


def _named(effects: Effects, left: Tensor) -> Tensor:  # shape: (T, B), bool
    answers = effects.parts.argmax(2)
    return answers[:, -1] == answers.gather(1, code(left).T).T


def distractibility(
    chosen: Tensor,  # shape: (T, B, K), bool
    effects: Effects,
) -> Tensor:  # shape: (T, B), NaN where all things count
    """The share of the things that do not count that the map does not call important.

    A part, or an object beside the figure, does not count if the score of the class loses less than 5 % without it.
    """
    losses = torch.cat(effects.losses(effects.scenes.label), 1)
    own = effects.whole.gather(1, effects.scenes.label[:, None]).abs()
    idle = losses < SLIGHT * own
    return 1 - (chosen & idle).sum(2) / idle.sum(1)  # 0 / 0 is NaN


def single_deletion(
    relevance: Tensor,  # shape: (B, P)
    effects: Effects,
) -> Tensor:  # shape: (B,), NaN where there is no correlation
    """Spearman's correlation of the relevance of the parts and of what the class loses without each, from 0 to 1."""
    losses, _ = effects.losses(effects.scenes.label)
    return 0.5 + 0.5 * single_deletion_correlation(relevance[:, None], losses[:, None])


def rivals(classes: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (C, 2), (C, 2, P) bool
    """For each class two others that share two parts with it, and not the same ones; and which these are."""
    found, shared = [], []
    for own in classes:
        same = classes == own
        near = [other for other in range(len(classes)) if same[other].sum() == 2]
        pair = next((a, b) for a, b in combinations(near, 2) if not (same[a] & same[b]).any())
        found.append(torch.tensor(pair))
        shared.append(torch.stack([same[other] for other in pair]))
    return torch.stack(found), torch.stack(shared)


def target_sensitivity(
    relevance: Tensor,  # shape: (B, 2, P), of the map of each rival class
    others: Tensor,  # shape: (B, 2), the rivals
    shared: Tensor,  # shape: (B, 2, P), bool, the parts that each has in common with the class
    effects: Effects,
) -> Tensor:  # shape: (B,), NaN where interventions show that the model itself does not tell the parts apart
    """Whether the parts that a rival shares are more relevant for it than for the other rival, in how many of the two.

    Only scenes count in which each rival's score loses more without its own two parts than without the other's.
    """
    without = torch.stack([effects.without(shared[:, i]) for i in (0, 1)], 1)  # (B, gone, C)
    left = without.gather(2, others[:, None].expand(-1, 2, -1))  # (B, gone, rival)
    holds = (left[:, 0, 0] < left[:, 1, 0]) & (left[:, 1, 1] < left[:, 0, 1])
    on = torch.einsum("brp,bsp->brs", relevance, shared.to(relevance))  # (B, map of the rival, parts of the rival)
    right = (on[:, 0, 0] > on[:, 1, 0]).float() + (on[:, 1, 1] > on[:, 0, 1]).float()
    return (right / 2).where(holds, torch.nan)
