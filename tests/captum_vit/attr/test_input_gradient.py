"""Gradients at the input are Captum's own, summed over patches; texts are read where their tokens enter."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from captum.attr import (
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.attr.input_gradient import smooth_grad
from tests.models import CASES
from tests.references.models import reference_images, reference_sentences, reference_vit

TARGETS = [1, 4]
Measure = Callable[[Tensor, Tensor], float]
PLAIN = [Saliency, InputXGradient, IntegratedGradients]


def patch_sums(pixels: Tensor) -> Tensor:  # (B, 3, 32, 32) -> (B, 1, 4, 4)
    sums = [[pixels[:, :, i : i + 8, j : j + 8].sum((1, 2, 3)) for j in range(0, 32, 8)] for i in range(0, 32, 8)]
    return torch.stack([torch.stack(row, 1) for row in sums], 1).unsqueeze(1)


@pytest.mark.parametrize("method", PLAIN)
def test_it_is_captums_summed_over_patches(method: type, measured: Measure) -> None:
    model, images = reference_vit(), reference_images()
    theirs = method(cv.logits_of(model)).attribute(images.clone().requires_grad_(), target=TARGETS)
    ours = cv.InputGradient(model, method).attribute(images, target=TARGETS)
    assert measured(ours, patch_sums(theirs)) < 1e-12


def test_smooth_grad_draws_as_captums_does(measured: Measure) -> None:
    model, images = reference_vit(), reference_images()
    settings = {"nt_samples": 4, "stdevs": 0.3, "nt_samples_batch_size": 1}
    torch.manual_seed(3)
    tunnel = NoiseTunnel(Saliency(cv.logits_of(model)))
    theirs = tunnel.attribute(images.clone().requires_grad_(), target=TARGETS, **settings)
    torch.manual_seed(3)
    ours = cv.InputGradient(model, smooth_grad, **settings).attribute(images, target=TARGETS)
    assert measured(ours, patch_sums(theirs)) < 1e-12


def test_without_noise_smooth_grad_is_saliency_and_takes_its_arguments() -> None:
    model, images = reference_vit(), reference_images()
    for absolute in (True, False):
        smooth = cv.InputGradient(model, smooth_grad, nt_samples=2, stdevs=0.0, abs=absolute)
        plain = cv.InputGradient(model, Saliency, abs=absolute)
        torch.testing.assert_close(smooth.attribute(images, target=TARGETS), plain.attribute(images, target=TARGETS))


@pytest.mark.slow
def test_integrated_gradients_are_complete_over_patches() -> None:
    """From zeros: the patches' scores sum to the difference of logits, as pixels do."""
    model, images = reference_vit(), reference_images()
    found = cv.InputGradient(model, IntegratedGradients, n_steps=200).attribute(images, target=TARGETS)
    with torch.no_grad():
        gain = model(images)[[0, 1], TARGETS] - model(torch.zeros_like(images))[[0, 1], TARGETS]
    torch.testing.assert_close(found.sum((1, 2, 3)), gain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [InputXGradient, Saliency])
def test_a_text_is_explained_where_its_tokens_enter(method: type) -> None:
    case = CASES["HF BERT"]()
    ids, (mask,) = case.inputs, case.additional_forward_args
    ours = cv.InputGradient(case.forward_func, method).attribute(ids, case.target, mask)
    first = cv.PLUS(method(case.forward_func), layers=[0]).attribute(ids, case.target, mask)
    torch.testing.assert_close(ours, first)


def test_a_position_that_no_pixel_lies_under_gets_nothing() -> None:
    case = CASES["timm ViT registers"]()
    found = cv.InputGradient(case.forward_func, Saliency, output="tokens").attribute(case.inputs, case.target)
    assert found.shape == (3, 21) and not found[:, :5].any() and found[:, 5:].all()


class Resized(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(nn.functional.interpolate(x, (32, 32)))


def test_an_image_that_the_patches_do_not_tile_is_refused() -> None:
    """Its cells have no whole numbers of pixels, and Captum does not run at all."""
    asked = []
    method = cv.InputGradient(Resized(reference_vit()).eval(), lambda f: asked.append(f) or Saliency(f))
    with pytest.raises(cv.InputError, match="tile"):
        method.attribute(torch.randn(2, 3, 62, 62), target=1)
    assert not asked


def test_pixels_of_an_image_that_the_model_resizes_are_summed_over_its_patches() -> None:
    model, x = reference_vit(), torch.randn(2, 3, 64, 64)
    found = cv.InputGradient(Resized(model).eval(), InputXGradient).attribute(x, target=1)
    wanted = cv.InputGradient(model, InputXGradient).attribute(nn.functional.interpolate(x, (32, 32)), target=1)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["Saliency", "SmoothGrad", "IntegratedGradients"])
def test_many_samples_take_the_memory_of_one(name: str) -> None:
    case = CASES["timm ViT"]()
    sizes = []
    handle = case.forward_func.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    try:
        cv.METHODS[name](case.forward_func).attribute(case.inputs, target=case.target)
    finally:
        handle.remove()
    assert set(sizes) == {1, 3}  # one, where it is measured from where its tokens come


def test_noise_tunnel_of_captum_on_subnetworks_of_half_precision_models() -> None:
    """Its noise is float32, whatever the model is."""
    case = CASES["timm ViT"]()
    model = copy.deepcopy(case.forward_func).bfloat16()
    found = cv.PLUS(NoiseTunnel(InputXGradient(model)), layers=[1]).attribute(case.inputs, target=case.target)
    assert found.isfinite().all() and found.any()


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_any_gradient_method_of_captum_will_do() -> None:
    """Also one with arguments of its own, made by the user's function."""
    model, images = reference_vit(), reference_images()
    ours = cv.InputGradient(model, partial(InputXGradient)).attribute(images, target=TARGETS)
    assert torch.equal(ours, cv.InputGradient(model, InputXGradient).attribute(images, target=TARGETS))
    assert cv.InputGradient(model, GuidedBackprop).attribute(images, target=TARGETS).any()


def test_sentences_without_a_mask_too() -> None:
    ids, _ = reference_sentences((5, 5))
    model = CASES["HF BERT"]().forward_func
    assert cv.InputGradient(model, IntegratedGradients).attribute(ids, target=[0, 1]).shape == (2, 5)
