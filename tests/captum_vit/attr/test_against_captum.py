"""Maps beside Captum's own, and attention beside what transformers returns, where the definitions are the same.

Captum knows no tokens: its ``LayerGradCam`` takes the second dimension for the channels, so it is given a layer at
which tokens stand where pixels do. Its ``FeatureAblation`` puts something else in the place of a patch; ours takes the
patch away. For a text the two meet in the mask: a word whose mask is zero is not there. What ``test_identities.py`` and
``test_input_gradient.py`` hold to Captum's is not repeated.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
)
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

import captum_vit as cv
from tests.models import redrawn
from tests.references.models import reference_bert, reference_images, reference_sentences, reference_vit

TARGETS = [1, 4]
TOKENS = {"output": "tokens"}
BLOCKS = (2, 1)  # the last one, where a shorter way is taken, and another
AGREE = 1e-12  # of the largest value, in float64
STEPS = 8  # whose midpoints are exact in float32, to which Captum rounds them

Measure = Callable[[Tensor, Tensor], float]


@pytest.fixture
def model() -> nn.Module:
    return reference_vit(layer_scale=True)


@pytest.fixture
def images() -> Tensor:
    return reference_images()


@pytest.mark.parametrize("block", BLOCKS)
def test_integrated_gradients_at_a_layer(block: int, model: nn.Module, images: Tensor, measured: Measure) -> None:
    options = {"target": TARGETS, "n_steps": STEPS, "method": "riemann_middle"}
    baselines = torch.zeros_like(images)
    theirs = LayerIntegratedGradients(model, model.blocks[block].norm1).attribute(images, baselines, **options)
    ours = cv.LayerIntegratedCDAM(model, block, **TOKENS).attribute(images, baselines, **options)
    assert measured(ours, theirs.sum(-1)) < AGREE


class Turned(nn.Module):
    """A layer behind which the tokens stand as channels do for Captum: (B, D, N), and then back."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.channels_first = layer, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.channels_first(self.layer(x).mT).mT


@pytest.mark.parametrize("block", BLOCKS)
def test_grad_cam(block: int, images: Tensor, measured: Measure) -> None:
    model, turned = reference_vit(layer_scale=True), reference_vit(layer_scale=True)
    turned.blocks[block].norm1 = norm = Turned(turned.blocks[block].norm1)
    theirs = LayerGradCam(turned, norm.channels_first).attribute(images, target=TARGETS)  # shape: (B, 1, N)
    ours = cv.TokenGradCAM(model, block, **TOKENS).attribute(images, target=TARGETS)
    assert measured(ours, theirs.squeeze(1)) < AGREE


@pytest.mark.parametrize("name", ["CAT", "PLUS(InputXGradient)"])
def test_gradient_x_input_of_every_block(name: str, model: nn.Module, images: Tensor, measured: Measure) -> None:
    at_input = {"target": TARGETS, "attribute_to_layer_input": True}
    layers = (LayerGradientXActivation(model, block).attribute(images, **at_input).sum(-1) for block in model.blocks)
    theirs = sum(layers, torch.zeros(()))[:, 1:].unflatten(1, (1, 4, 4))
    assert measured(cv.METHODS[name](model).attribute(images, target=TARGETS), theirs) < AGREE


def test_words_ablated_through_the_mask(measured: Measure) -> None:
    model = reference_bert()
    ids, mask = reference_sentences()

    def probabilities(present: Tensor) -> Tensor:
        return model(ids, present).logits.softmax(-1)

    each = torch.arange(mask.shape[1]).unsqueeze(0)
    theirs = FeatureAblation(probabilities).attribute(mask.double(), target=TARGETS, feature_mask=each)
    ours = cv.TokenAblation(model, **TOKENS).attribute(ids, target=TARGETS, additional_forward_args=(mask,))
    assert measured(ours, theirs) < AGREE


def test_attention_is_what_transformers_returns(images: Tensor, measured: Measure) -> None:
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=48,
        attn_implementation="eager",
    )  # fmt: skip
    model = redrawn(ViTForImageClassification(config)).double()
    theirs = model(images, output_attentions=True).attentions[-1].mean(1)[:, 0].detach()
    assert measured(cv.RawAttention(model, **TOKENS).attribute(images), theirs) < AGREE
