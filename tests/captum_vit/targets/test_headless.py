"""Models without a class head: a direction of the embedding, or any function of what is returned, is a target."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from captum.attr import LayerGradientXActivation
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from tests.contracts.closeness import assert_close
from tests.models import PICTURE, SIZES, TIMM, image, redrawn, timm_vit

METHODS = ["LayerCDAM", "PLUS(DecompX)", "VTranM", "GenAtt", "PredictionMap", "CAT", "RawAttention"]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def encoder() -> nn.Module:
    """Self-supervised: returns an object with tokens and a pooled token, no logits."""
    return redrawn(transformers.Dinov2Model(transformers.Dinov2Config(**SIZES, **PICTURE, mlp_ratio=2))).double()


@pytest.mark.parametrize("method", METHODS)
def test_a_direction_of_the_embedding_is_the_class_of_a_head(method: str):
    """The model without its head, along the head's row, is the model with its head."""
    model, pixels = redrawn(timm_vit(**TIMM)).double(), image().double()
    head, target = model.head, 3
    with_head = cv.METHODS[method](cv.Scalar(model, lambda logits: logits)).attribute(pixels, target=target)
    model.reset_classifier(0)
    found = cv.METHODS[method](cv.Direction(model, head.weight[target])).attribute(pixels, target=0)
    if method == "PredictionMap":  # the only one that sees the head's bias
        with_head = with_head - head.bias[target].detach()
    assert_close(found, with_head, "float64")


@pytest.mark.parametrize("method", METHODS)
def test_a_direction_and_a_function_agree(method: str):
    model, pixels, g = encoder(), image().double(), torch.randn(24).double()
    along = cv.METHODS[method](cv.Direction(model, g)).attribute(pixels)
    function = cv.Scalar(model, lambda said: said.pooler_output @ g)
    assert_close(cv.METHODS[method](function).attribute(pixels), along, "float64")
    assert along.shape == (3, 1, 4, 4)


def test_retrieval_which_patches_make_an_image_match_a_query():
    """The cosine with another image's embedding, no linear function, as Captum explains it."""
    model, pixels = encoder(), image().double()
    with torch.no_grad():
        query = model(image()[:1].double()).pooler_output
    match = cv.Scalar(model, lambda said: F.cosine_similarity(said.pooler_output, query))
    norms = [module for name, module in model.named_modules() if name.endswith("norm1")]
    theirs = LayerGradientXActivation(match, norms[-1]).attribute(pixels, target=0).sum(-1)
    found = cv.LayerCDAM(match, output="tokens").attribute(pixels)
    assert found.abs().max() > 1e-3
    assert_close(found, theirs.detach(), "float64")


def test_survival_the_risk_of_several_hazards():
    """A function may give several scores, each a target."""
    model, pixels = redrawn(timm_vit(**TIMM)).double(), image().double()

    def survival(hazards: Tensor) -> Tensor:  # shape: (B, K), the logarithm of surviving each interval
        return F.logsigmoid(-hazards).cumsum(1)

    found = cv.LayerCDAM(cv.Scalar(model, survival)).attribute(pixels, target=1)
    logits = model(pixels).detach()
    weights = -torch.sigmoid(logits)[:, :2]  # d/dh of the first two terms
    each = torch.cat([cv.LayerCDAM(model).attribute(pixels, target=k) for k in (0, 1)], 1)
    wanted = (weights[:, :, None, None] * each).sum(1, keepdim=True)
    assert_close(found, wanted, "float64")


def test_what_is_no_tensor_is_refused_with_the_way_out():
    class Report(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: Tensor) -> Any:
            return {"risk": self.model(pixels)[:, :1]}

    model, pixels = Report(redrawn(timm_vit(**TIMM))), image()
    with pytest.raises(cv.CaptumVitError, match="Scalar"):
        cv.LayerCDAM(model.eval()).attribute(pixels, target=0)
    assert cv.LayerCDAM(cv.Scalar(model, lambda said: said["risk"])).attribute(pixels).shape == (3, 1, 4, 4)
