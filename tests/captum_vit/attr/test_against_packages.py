"""The token CAMs beside pytorch-grad-cam's, before it rectifies and rescales: an optional test.

Its ``reshape_transform`` hands it patches without CLS, as its README advises for vision transformers, so
``include_prefix=False`` here. Sums over signed activations are its way (``absolute=False``).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from tests.references.models import reference_images, reference_vit

packaged = pytest.importorskip("pytorch_grad_cam", reason="pip install grad-cam, to compare with it")

TARGETS = [1, 4]
LAYERS = ("blocks.2.norm1", "blocks.1.norm1", "blocks.0")
WITHOUT_PREFIX = {"include_prefix": False}
CAMS = {
    "HiResCAM": (cv.TokenHiResCAM, {}),
    "GradCAM": (cv.TokenGradCAM, WITHOUT_PREFIX),
    "GradCAMElementWise": (cv.TokenGradCAMElementWise, {}),
    "LayerCAM": (cv.TokenLayerCAM, {}),
    "XGradCAM": (cv.TokenXGradCAM, WITHOUT_PREFIX | {"absolute": False}),
    "GradCAMPlusPlus": (cv.TokenGradCAMPlusPlus, WITHOUT_PREFIX | {"absolute": False}),
}
AGREE = 1e-12  # of the largest value, in float64


def picture(tokens: Tensor) -> Tensor:  # (B, 17, D) -> (B, D, 4, 4)
    return tokens[:, 1:].mT.unflatten(2, (4, 4))


def theirs(name: str, model: nn.Module, layer: str, images: Tensor) -> Tensor:  # shape: (B, 1, 4, 4)
    """Its map before post-processing: what it makes of the activations and gradients that it has seen."""
    module = model.get_submodule(layer)
    cam = getattr(packaged, name)(model, [module], reshape_transform=picture)
    try:
        chosen = [packaged.utils.model_targets.ClassifierOutputTarget(t) for t in TARGETS]
        cam(images, chosen)
        seen = cam.activations_and_grads
        (activations,), (gradients,) = seen.activations, seen.gradients
        raw = cam.get_cam_image(images, module, chosen, activations.numpy(), gradients.numpy(), False)
    finally:
        cam.activations_and_grads.release()
    return torch.as_tensor(raw).unsqueeze(1)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", CAMS)
def test_token_cams_are_the_packages_before_its_post_processing(
    name: str, layer: str, measured: Callable[[Tensor, Tensor], float]
) -> None:
    method, options = CAMS[name]
    model, images = reference_vit(layer_scale=True), reference_images()
    with torch.no_grad():
        model.head.weight.mul_(1e7)  # GradCAM++ there adds 1e-6 to squared gradients, which may not count
    wanted = theirs(name, model, layer, images)
    found = method(model, layer, **options).attribute(images, target=TARGETS)
    assert measured(found, wanted) < AGREE
