"""A token's place is where it comes from, wherever it stands in the sequence."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.trace.removal.without import Without
from captum_vit.trace.run.state import undisturbed
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import IN_FULL_PRECISION, draws
from tests.models.arranged import GRID, ORDERS, arranged

PICTURES = (2, 3, 24, 32)


def explained(method: str, model: nn.Module, x: Tensor, output: str) -> Tensor:
    attribution = cv.METHODS[method](model)
    attribution.output = output
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attribution.attribute(x, target=[1, 4])


@pytest.mark.along("order", list(ORDERS))
@pytest.mark.parametrize("output", ["grid", "pixels"])
def test_the_order_of_the_sequence_does_not_show(method: str, order: str, output: str):
    model, plain = arranged(order)
    if draws(cv.METHODS[method](model)):
        return
    x = torch.randn(PICTURES).double()
    found, wanted = (explained(method, one, x, output) for one in (model, plain))
    assert found.shape[-2:] == (GRID if output == "grid" else PICTURES[2:])
    why = "float64, divided by sums near zero" if method in IN_FULL_PRECISION else "float64"
    assert_close(found, wanted, why)


@pytest.mark.parametrize("order", list(ORDERS))
def test_tokens_are_removed_wherever_they_stand(order: str):
    model, plain = arranged(order)
    x, gone = torch.randn(PICTURES).double(), torch.rand(2, *GRID).argsort(-1) == 0
    rows = torch.arange(2)
    for way in ("drop", "mask"):
        with undisturbed(model), undisturbed(plain):
            found, wanted = (Without(one, (x,), (), way)(rows, gone) for one in (model, plain))
        assert_close(found, wanted, "float64")
