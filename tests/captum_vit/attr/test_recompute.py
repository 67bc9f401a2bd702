"""Blocks that run again in the backward pass give the same maps."""

import pytest
import torch

import captum_vit as cv
from tests.contracts.pairs import ALL

NAMES = ["HF BERT", "HF ModernBERT", "timm ViT", "torchvision ViT", "timm DINOv2 registers"]
NAMES += [pytest.param("digits, Swin", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_the_same_to_the_last_bit(name: str) -> None:
    case = ALL[name]()
    given = case.inputs, case.target, case.additional_forward_args or None
    plain, again = (cv.DecompX(case.forward_func, checkpoint=choice) for choice in (False, True))
    assert torch.equal(plain.attribute(*given), again.attribute(*given))
    assert torch.equal(cv.PLUS(plain).attribute(*given), cv.PLUS(again).attribute(*given))


def test_checkpoint_is_true_or_false() -> None:
    with pytest.raises(cv.OptionError, match="checkpoint"):
        cv.DecompX(ALL["timm ViT"]().forward_func, checkpoint=1)
