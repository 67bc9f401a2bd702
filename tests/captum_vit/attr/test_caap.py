"""CAAP: identities, what stays of the pass, portions, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from tests.contracts.closeness import assert_close
from tests.references.models import DEPTH, reference_images, reference_vit

TARGETS = [1, 4]


@pytest.fixture
def model() -> nn.Module:
    return reference_vit(layer_scale=True)


def explained(model: nn.Module, layers: object = None, score: str = "logit", **options: object) -> Tensor:
    method = cv.CAAP(model, layers=layers, score=score, output="tokens")
    return method.attribute(reference_images(), target=TARGETS, **options)


@pytest.mark.filterwarnings("ignore::captum_vit.ZeroMapWarning")
def test_of_an_input_in_itself_nothing_changes(model: nn.Module) -> None:
    assert not explained(model, baselines=reference_images()).round(decimals=12).any()


def test_at_the_first_block_alone_it_is_one_patch_in_a_grey_image(model: nn.Module) -> None:
    """A token that enters the first block is made of its patch alone."""
    found = explained(model, layers=[0])
    grey, images = torch.zeros_like(reference_images()), reference_images()
    with torch.no_grad():
        for place, (top, left) in {1: (0, 0), 6: (8, 8), 16: (24, 24)}.items():
            shown = grey.clone()
            shown[:, :, top : top + 8, left : left + 8] = images[:, :, top : top + 8, left : left + 8]
            gain = (model(shown) - model(grey))[[0, 1], TARGETS]
            assert_close(found[:, place], gain, "float64")
    assert not found[:, 0].any()


def test_the_middle_half_is_the_default() -> None:
    model = reference_vit()
    model.blocks = model.blocks + reference_vit(seed=1).blocks[:1]  # four
    assert torch.equal(explained(model), explained(model, layers=[1, 2]))
    assert not torch.allclose(explained(model), explained(model, layers=[0, 1, 2, 3]))


def test_tokens_at_once_and_baselines_in_other_forms_give_the_same(model: nn.Module) -> None:
    whole = explained(model, layers=[-2, -1])
    forms = [
        {"perturbations_per_eval": 5},
        {"perturbations_per_eval": 99, "show_progress": True},
        {"baselines": 0},
        {"baselines": torch.zeros(1, 3, 32, 32)},
        {"baselines": (0.0,)},
    ]
    for options in forms:
        assert_close(explained(model, layers=range(1, DEPTH), **options), whole, "float64")


def test_blocks_before_the_first_run_twice(model: nn.Module) -> None:
    runs = []
    model.blocks[0].register_forward_hook(lambda *_: runs.append("block 0"))
    model.blocks[2].register_forward_hook(lambda *_: runs.append("block 2"))
    explained(model, layers=[1, 2])
    runs.clear()
    explained(model, layers=[1, 2], perturbations_per_eval=4)
    assert runs.count("block 2") == 2 + 4


@pytest.mark.parametrize("layers", [[0, 2], [-1, 0]])
def test_blocks_that_are_not_in_a_row_are_refused(model: nn.Module, layers: list[int]) -> None:
    with pytest.raises(cv.OptionError, match=r"layers=range\(0, 3\)"):
        explained(model, layers=layers)
