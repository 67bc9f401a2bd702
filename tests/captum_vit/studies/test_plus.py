"""Every cutoff from one pass is SkipPLUS from that layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import Attribution, Deconvolution, InputXGradient
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.errors import InputError, OptionError
from captum_vit.studies import Cutoffs, CutoffScores, cutoffs, score_cutoffs
from tests.models import CASES
from tests.references import plus
from tests.references.models import DEPTH, reference_images, reference_vit

TARGETS = [1, 4]
BASES: dict[str, Callable[[nn.Module], Attribution]] = {
    "DecompX": cv.DecompX,
    "DecompX of pixels": lambda model: cv.DecompX(model, output="pixels"),
    "CAT": cv.CAT,
    "GenAtt": cv.GenAtt,
    "RawAttention": cv.RawAttention,
    "InputXGradient": InputXGradient,
}


@pytest.mark.parametrize("name", BASES)
def test_every_cutoff_is_skip_plus_from_there(name: str) -> None:
    model, images = reference_vit(), reference_images()
    sweep = cutoffs(BASES[name](model), images, TARGETS)
    assert len(sweep.maps) == DEPTH
    for m, maps in enumerate(sweep.maps):
        wanted = cv.SkipPLUS(BASES[name](model), start_layer=m).attribute(images, target=TARGETS)
        torch.testing.assert_close(maps, wanted, rtol=1e-9, atol=1e-12)
    middle = cv.SkipPLUS(BASES[name](model)).attribute(images, target=TARGETS)
    torch.testing.assert_close(sweep.maps[sweep.middle], middle, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_every_cutoff_equals_its_twin() -> None:
    model, images = reference_vit(), reference_images()
    sweep = cutoffs(cv.DecompX(model, output="tokens"), images, TARGETS)
    for m in range(DEPTH):
        for maps, image, c in zip(sweep.maps[m], images, TARGETS, strict=True):
            wanted = plus.skip_plus(model, image, c, plus.decompx_base, m)
            torch.testing.assert_close(maps, wanted, rtol=1e-9, atol=1e-9)


def test_padded_text_and_further_arguments() -> None:
    case = CASES["HF BERT"]()
    model, ids, args, target = case
    sweep = cutoffs(cv.GenAtt(model), (ids,), target, args)
    whole = cv.PLUS(cv.GenAtt(model)).attribute(ids, target, args)
    torch.testing.assert_close(sweep.maps[0], whole)
    assert not sweep.maps[:, args[0] == 0].any()


def test_one_pass() -> None:
    model, images = reference_vit(), reference_images()
    cv.DecompX(model).attribute(images, target=TARGETS)  # the first call finds the blocks, and what ends the head
    passes: list[Any] = []
    model.blocks[0].attn.register_forward_hook(lambda *_: passes.append(None))
    cutoffs(cv.DecompX(model), images, TARGETS)
    assert len(passes) == 1


def sweep_of(*values: float) -> Cutoffs:
    return Cutoffs(torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1, 1).expand(-1, 2, 1, 4, 4), TARGETS)


def mean(maps: Tensor, targets: Any) -> Tensor:
    assert maps.shape == (2, 1, 4, 4) and targets == TARGETS
    return maps.mean()


def test_scores_of_every_cutoff() -> None:
    found = score_cutoffs({"a": sweep_of(1, 3, 2, 0), "b": sweep_of(5, 4, 3, 2)}, mean)
    assert {name: s.tolist() for name, s in found.scores.items()} == {"a": [1, 3, 2, 0], "b": [5, 4, 3, 2]}
    assert found.best() == {"a": 1, "b": 0}
    assert found.best(higher_is_better=False) == {"a": 3, "b": 3}


def test_pictures() -> None:
    scores = CutoffScores({"a": torch.tensor([1.0, 3, 2, 0]), "b": torch.tensor([5.0, 4, 3, 2])})
    (axes,) = scores.plot("insertion").axes
    assert axes.get_ylabel() == "insertion"
    assert {text.get_text() for text in axes.texts} == {"PLUS", "SkipPLUS"}
    maps = sweep_of(1, 3, 2, 0).plot(torch.rand(3, 32, 32), sample=1)
    assert [a.get_title() for a in maps.axes] == ["input", "m = 0\nPLUS", "m = 1\n", "m = 2\nSkipPLUS", "m = 3\n"]


def test_what_cannot_be_is_refused() -> None:
    model, images = reference_vit(), reference_images()
    with pytest.raises(OptionError, match="start layers"):
        cutoffs(Deconvolution(model), images, TARGETS)
    with pytest.raises(OptionError, match="one number"):
        sweep_of(1, 2).scores(lambda maps, targets: maps)
    with pytest.raises(OptionError, match="one number"):
        sweep_of(1, 2).scores(lambda maps, targets: None)
    with pytest.raises(InputError, match="depth"):
        score_cutoffs({"a": sweep_of(1, 2), "b": sweep_of(1, 2, 3)}, mean)
    with pytest.raises(InputError, match="none"):
        score_cutoffs({}, mean)
