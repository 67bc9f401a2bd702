"""Heads that use their input again: each sample is read with its own."""

import warnings
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import draws
from tests.models import image, redrawn, timm_vit
from tests.models.timm import TIMM


class Rereading(nn.Module):
    """A classifier whose scores depend on the pixels past its tokens too."""

    def __init__(self, vit: nn.Module, use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.vit, self.use = vit, use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.vit(x), x)


def divided(scores: Tensor, x: Tensor) -> Tensor:
    return scores / x.flatten(1).std(1, keepdim=True)


def shifted(scores: Tensor, x: Tensor) -> Tensor:
    return scores + x.mean((2, 3)) @ torch.linspace(-1, 1, 15, dtype=x.dtype).view(3, 5)


def gated(scores: Tensor, x: Tensor) -> Tensor:
    return scores * (1 + x.flatten(1)[:, :5]).sigmoid()


def joined(scores: Tensor, x: Tensor) -> Tensor:
    both = torch.cat([scores, x.mean((2, 3))], 1)
    return both @ torch.linspace(-1, 1, 40, dtype=x.dtype).view(8, 5).sin()


@cache
def case(use: Callable[[Tensor, Tensor], Tensor]) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = redrawn(timm_vit(**TIMM))
        return Rereading(model, use).double().eval(), image().double() * torch.tensor([1.0, 3, 0.2]).view(3, 1, 1, 1)


@pytest.mark.parametrize("use", [divided, shifted, gated, joined], ids=lambda use: use.__name__)
def test_a_row_is_read_with_its_own_input(method, use):
    model, x = case(use)
    target = [1, 4, 2]
    attribution = cv.METHODS[method](model)
    if draws(attribution):
        assert attribution.attribute(x, target=target).isfinite().all()  # a row depends on its place in the batch
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explain = attribution.attribute
        if method == "CAAP":  # its neutral image is zeros, by which `divided` cannot divide
            explain = partial(explain, baselines=x[:1].flip(-1))
        together = explain(x, target=target)
        for i in range(3):
            assert_close(together[i : i + 1], explain(x[i : i + 1], target=target[i]), "float64")
