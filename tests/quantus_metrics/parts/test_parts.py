"""The protocol of parts on a world whose scores can be computed by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import quantus_metrics as qm
from captum_vit.demo import demo_parts, part_scenes
from captum_vit.demo.parts.scenes import CLASSES
from captum_vit.errors import InputError
from quantus_metrics.parts import Effects, part_tests_of
from quantus_metrics.parts import scores as tests

COUNTS = torch.tensor([5.0, 4, 3, 2, 1])  # what each part counts for
CORNERS = [(6 * row + 2, 6 * column + 2) for row in range(3) for column in range(3)][:7]  # five parts and two objects


@dataclass(frozen=True)
class Blocks:
    """Pictures (B, 1, 18, 18) of blocks of 2 x 2 pixels, as bright as the kind of the part says, far apart."""

    label: Tensor
    present: Tensor  # shape: (B, 7)

    @property
    def classes(self) -> Tensor:
        return CLASSES

    @property
    def masks(self) -> Tensor:
        masks = torch.zeros(len(self.label), 7, 18, 18, dtype=torch.bool)
        for number, (row, column) in enumerate(CORNERS):
            masks[:, number, row : row + 2, column : column + 2] = True
        return masks

    @property
    def part_masks(self) -> Tensor:
        return self.masks[:, :5]

    @property
    def object_masks(self) -> Tensor:
        return self.masks[:, 5:]

    @property
    def images(self) -> Tensor:
        shown = torch.cat([CLASSES[self.label] + 1, torch.ones(len(self.label), 2)], 1) * self.present
        return torch.einsum("bk,bkhw->bhw", shown, self.masks.float()).unsqueeze(1)

    def without(self, parts: Tensor | None = None, objects: Tensor | None = None) -> Blocks:
        gone = torch.cat([torch.zeros(n).bool() if x is None else x for x, n in ((parts, 5), (objects, 2))], -1)
        return replace(self, present=self.present * ~gone)


class Counts(nn.Module):
    """The score of a class: the sum of what its parts count for that are seen. The first object costs a little."""

    def __init__(self):
        super().__init__()
        self.scale, self.images = nn.Parameter(torch.ones(())), 0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        seen = torch.stack([images[:, 0, row, column] for row, column in CORNERS], 1).round().long()
        match = (seen[:, None, :5] == CLASSES + 1).float()
        return self.scale * (match @ COUNTS) + 0.1 * seen[:, 5:6]


@pytest.fixture(scope="module")
def effects() -> Effects:
    label = torch.arange(10)
    return qm.part_effects(Counts(), Blocks(label, torch.ones(10, 7)))


def test_interventions_show_what_each_part_counts_for(effects):
    parts, objects = effects.losses(effects.scenes.label)
    torch.testing.assert_close(parts, COUNTS.expand(10, 5))
    torch.testing.assert_close(objects, torch.tensor([0.1, 0]).expand(10, 2))
    assert effects.right.all() and effects.background_independence == 1
    other = (effects.scenes.label + 1) % 10
    same = (CLASSES[other] == CLASSES).float()
    torch.testing.assert_close(effects.losses(other)[0], COUNTS * same)
    model = Counts()
    qm.part_effects(model, effects.scenes, batch_size=7)
    assert model.images == 10 * (2**5 + 2)


def test_shapley_values_share_out_what_all_parts_give(effects):
    """And by hand for class 1, as a mean over all orders in which its parts may come."""
    label, f = effects.scenes.label, effects.parts.softmax(2)
    found, own = effects.shapley(label), f[label, :, label]
    torch.testing.assert_close(found.sum(1), own[:, -1] - own[:, 0])
    gains = torch.zeros(5)
    for order in permutations(range(5)):
        for at, part in enumerate(order):
            before = sum(1 << p for p in order[:at])
            gains[part] += (own[1, before | 1 << part] - own[1, before]) / 120
    torch.testing.assert_close(found[1], gains)


def test_each_test_by_hand(effects):
    """Class 1 is (0, 2, 0, 2, 3): no other has its parts 0 and 1, or 3 and 4; no part is it alone."""
    chosen = torch.zeros(3, 10, 5, dtype=torch.bool)
    chosen[0, :, :2], chosen[1, :, 4], chosen[2] = True, True, True
    assert tests.controlled_data(chosen, effects)[:, 1].tolist() == [1, 0.5, 1]
    assert tests.preservation(chosen, effects)[:, 1].tolist() == [1, float(_named(1, [4])), 1]
    assert tests.deletion(chosen, effects)[:, 1].tolist() == [float(not _named(1, [2, 3, 4])), 0, 1]
    things = torch.zeros(2, 10, 7, dtype=torch.bool)
    things[0, :, :5], things[1, :, 5] = True, True
    assert tests.distractibility(things, effects)[:, 1].tolist() == [1, 0.5]  # the objects do not count
    upside_down = torch.tensor([1.0, 2, 3, 4, 5]).expand(10, 5)
    assert tests.single_deletion(COUNTS.expand(10, 5), effects)[1] == 1
    assert tests.single_deletion(upside_down, effects)[1].abs() < 1e-9


def _named(label: int, left: list[int]) -> bool:
    """Whether the largest score, the first of equal ones, is that of the class with only these parts left."""
    match = (CLASSES[:, left] == CLASSES[label, left]).float() @ COUNTS[left]
    return int(match.argmax()) == label


def test_sets_that_are_enough_are_those_of_no_other_class():
    sets = tests.sufficient_sets(CLASSES)
    for label, rows in enumerate(sets):
        for row in rows:
            assert ((CLASSES[label] == CLASSES) | ~row).all(1).sum() == 1
            for part in row.nonzero().flatten():
                fewer = row.clone()
                fewer[part] = False
                assert ((CLASSES[label] == CLASSES) | ~fewer).all(1).sum() > 1


def test_rivals_share_two_parts_each_and_not_the_same_ones():
    others, shared = tests.rivals(CLASSES)
    assert (shared.sum(2) == 2).all() and not shared.all(1).any()
    assert torch.equal(CLASSES[others] == CLASSES[:, None], shared)


def test_what_interventions_give_is_better_than_chance_and_its_negative_is_worse(effects):
    lot = torch.Generator().manual_seed(0)
    maps = {
        "best": effects.map,
        "random": lambda classes: torch.rand(10, 1, 18, 18, generator=lot),
        "inverted": lambda classes: -effects.map(classes),
    }
    found = {name: part_tests_of(of, effects) for name, of in maps.items()}
    for name in ("completeness", "correctness", "contrastivity", "score"):
        best, random, inverted = (getattr(found[kind], name) for kind in maps)
        assert best > random > inverted, name
    assert found["best"].correctness == found["best"].contrastivity == 1
    assert found["inverted"].correctness == found["inverted"].contrastivity == 0


@pytest.mark.slow
def test_in_each_test_interventions_are_better_than_chance_and_their_negatives_worse():
    """On the demo model, where as many things are called important. Sets of parts are tests of their Shapley values."""
    found = qm.part_effects(demo_parts(), part_scenes(100, seed=5))
    label, lot = found.scenes.label, torch.Generator().manual_seed(0)

    def top(relevance: Tensor, n: int) -> Tensor:  # the n largest of each row
        return relevance.argsort(-1).argsort(-1) >= relevance.shape[-1] - n

    sets, things = found.shapley(label), torch.cat(found.losses(label), 1)
    for test, counts in {
        tests.controlled_data: sets, tests.preservation: sets, tests.deletion: sets, tests.distractibility: things,
    }.items():  # fmt: skip
        chance = top(torch.rand(20, *counts.shape, generator=lot), 2)
        best, random, inverted = (
            test(chosen, found).nanmean() for chosen in (top(counts, 2)[None], chance, top(-counts, 2)[None])
        )
        assert best > random > inverted, test.__name__


def test_a_method_is_asked_three_times_about_scenes_that_the_model_names(effects):
    present = torch.ones(10, 7)
    present[3] = 0
    some, asked = qm.part_effects(Counts(), Blocks(effects.scenes.label, present)), []

    def explain(model, inputs, targets, **_):
        asked.append(targets)
        return np.random.default_rng(len(asked)).random((len(inputs), 18, 18))

    found = qm.part_tests(explain, Counts(), some)
    assert [len(targets) for targets in asked] == [9, 9, 9]
    assert {len(rows) for rows in found.scores.values()} == {9}
    assert "| completeness |" in str(found) and found.summary("preservation").n == 9


def test_what_says_nothing_is_refused(effects):
    with pytest.raises(InputError, match="Two scenes"):
        qm.part_effects(Counts(), Blocks(effects.scenes.label, torch.zeros(10, 7)))
    for made, words in ((np.ones((10, 1, 18, 18)), "varies"), (np.full((10, 18, 18), np.nan), "Finite")):
        with pytest.raises(InputError, match=words):
            qm.part_tests(lambda made=made, **_: made, Counts(), effects)
    with pytest.raises(InputError, match="map for each"):
        qm.part_tests(lambda **_: np.random.rand(3, 1, 18, 18), Counts(), effects)
    with pytest.raises(InputError, match="explain_func"):
        qm.part_tests(None, Counts(), effects)
