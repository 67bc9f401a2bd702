"""Outputs that are no class logits: several regression outputs, one logit for yes or no, sums of outputs."""

from __future__ import annotations

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, LayerGradientXActivation
from torch import Tensor, nn

import captum_vit as cv
from tests.references.models import CLASSES, WIDTH, reference_images, reference_vit

LINEAR = ["LayerCDAM", "LayerIntegratedCDAM", "DecompX", "SkipPLUS(DecompX)", "CAT", "PLUS(InputXGradient)"]
"""Methods whose map of a sum of outputs is the sum of their maps."""


@pytest.fixture
def images() -> Tensor:
    return reference_images()


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


def with_head(rows: Tensor, bias: float = 0.3) -> nn.Module:
    """The reference model with an output for each row."""
    model = reference_vit()
    model.head = nn.Linear(WIDTH, len(rows), dtype=torch.float64)
    with torch.no_grad():
        model.head.weight.copy_(rows)
        model.head.bias.fill_(bias)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("method", LINEAR)
def test_the_map_of_a_sum_of_outputs_is_the_sum_of_their_maps(method: str, images: Tensor) -> None:
    model, a = reference_vit(), torch.tensor([0.5, -2.0, 0.0, 1.5, 3.0], dtype=torch.float64)
    together = cv.METHODS[method](cv.Direction(model, a)).attribute(images, target=0)
    close(together, sum(a[c] * cv.METHODS[method](model).attribute(images, target=c) for c in range(CLASSES)))
    margin = cv.METHODS[method](cv.Margin(model, 3, 1)).attribute(images)
    close(margin, sum(s * cv.METHODS[method](model).attribute(images, target=c) for s, c in ((1, 3), (-1, 1))))


@pytest.mark.slow
def test_each_of_eight_outputs_is_a_target(images: Tensor) -> None:
    """A regression model: whatever stands beside an output has no part in its map."""
    rows = torch.randn(8, WIDTH, dtype=torch.float64)
    model = with_head(rows)
    every = cv.LayerCDAM(model).all_classes(images)
    for k in range(8):
        alone = cv.LayerCDAM(with_head(rows[k : k + 1])).attribute(images)
        close(cv.LayerCDAM(model).attribute(images, target=k), alone)
        close(every[:, k : k + 1], alone)
    close(cv.LayerCDAM(model).attribute(images, target=[6, 2]), torch.stack([every[0, 6:7], every[1, 2:3]]))


@pytest.mark.parametrize("method", ["PredictionMap", "PredicAtt", "VTranM"])
def test_no_softmax_is_taken_of_one_logit(method: str, images: Tensor) -> None:
    """It would be one, whatever the image; so of a single logit the raw value counts, as of a margin."""
    rows = torch.randn(2, WIDTH, dtype=torch.float64)
    alone, pair = with_head(rows[:1] - rows[1:], bias=0.0), with_head(rows)
    close(cv.METHODS[method](alone).attribute(images), cv.METHODS[method](cv.Margin(pair, 0, 1)).attribute(images))


@pytest.mark.slow
@pytest.mark.parametrize("method", cv.METHODS)
def test_yes_or_no(method: str, images: Tensor) -> None:
    """A binary head of one logit, as (B, 1) or as (B,), needs no target; turned round, it speaks for no."""
    row = torch.randn(1, WIDTH, dtype=torch.float64)
    model = with_head(row)

    def explained(f: nn.Module, target: int | None = None) -> Tensor:
        torch.manual_seed(0)
        return cv.METHODS[method](f).attribute(images, target=target)

    wanted = explained(model)
    close(explained(model, 0), wanted)
    close(explained(Flat(model).eval()), wanted)
    if method in LINEAR:
        close(explained(with_head(-row)), -wanted)


class Flat(nn.Module):
    """One number for each image, without a dimension of outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).squeeze(-1)


def test_captums_own_methods_take_the_same_targets(images: Tensor) -> None:
    model = with_head(torch.randn(8, WIDTH, dtype=torch.float64))
    f = cv.Direction(model, torch.arange(8.0, dtype=torch.float64))
    theirs = LayerGradientXActivation(f, model.blocks[-1].norm1).attribute(images, target=0)
    close(cv.LayerCDAM(f, output="tokens").attribute(images, target=0), theirs.sum(-1))
    for target in (0, 7, [3, 5]):
        found = IntegratedGradients(cv.logits_of(model)).attribute(images, target=target, n_steps=4)
        close(found, IntegratedGradients(model).attribute(images, target=target, n_steps=4))
    assert InputXGradient(f).attribute(images, target=0).any()
