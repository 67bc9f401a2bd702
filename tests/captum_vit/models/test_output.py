"""Which tensor of what a model returns a target indexes: one by name, or the only one; otherwise it is refused."""

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.models.output import scores_of
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import explain, in_float64
from tests.models import Case

Named = namedtuple("Named", ["features", "logits"])
Unnamed = namedtuple("Unnamed", ["features", "scores"])
F, Y, LOSS = torch.randn(2, 24), torch.randn(2, 5), torch.tensor(0.5)

TAKEN: dict[str, Any] = {
    "logits behind features": Named(F, Y),
    "a dictionary": {"features": F, "logits": Y},
    "a tensor alone": (Y,),
    "a loss before it": (LOSS, Y),
    "hidden states behind it": (Y, (F, F)),
    "attention before it": ([F], Y),
    "a mask beside it": (Y, F > 0),
    "nothing beside it": [None, Y],
}
REFUSED: dict[str, Any] = {
    "features and logits": (F, Y),
    "logits and features": [Y, F],
    "fields of other names": Unnamed(F, Y),
    "a dictionary of other names": {"features": F, "scores": Y},
    "no scores": (LOSS, [F]),
    "an empty tuple": (),
}


@pytest.mark.parametrize("form", TAKEN)
def test_scores_by_name_or_alone(form: str):
    assert scores_of(TAKEN[form]) is Y


@pytest.mark.parametrize("form", REFUSED)
def test_several_without_a_name(form: str):
    with pytest.raises(cv.TraceError) as refused:
        scores_of(REFUSED[form])
    assert "Scalar" in refused.value.hint


class Both(nn.Module):
    """Features and logits side by side, as self-supervised and detection code returns them."""

    def __init__(self, vit: nn.Module, put: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.vit, self.put = vit, put

    def forward(self, x: Tensor) -> Any:
        features = self.vit.forward_features(x)
        return self.put(features[:, 0], self.vit.forward_head(features))


def both(put: Callable[[Tensor, Tensor], Any]) -> Case:
    case = in_float64("timm ViT")
    return case._replace(forward_func=Both(case.forward_func, put).eval())


@pytest.mark.parametrize("method", cv.METHODS)
def test_every_method_refuses_features_beside_logits(method: str):
    with pytest.raises(cv.TraceError, match="lambda output: output"):
        explain(cv.METHODS[method](both(lambda f, y: (f, y)).forward_func), both(lambda f, y: (f, y)))


def test_its_advice_is_the_map_of_the_logits():
    plain, pair, named = in_float64("timm ViT"), both(lambda f, y: (f, y)), both(Named)
    wanted = explain(cv.CAT(plain.forward_func), plain)
    assert_close(explain(cv.CAT(cv.Scalar(pair.forward_func, lambda output: output[1])), pair), wanted, "float64")
    assert_close(explain(cv.CAT(named.forward_func), named), wanted, "float64")
    with pytest.raises(cv.TraceError, match="Scalar"):
        cv.explain(pair.forward_func, pair.inputs[:1], 3)
