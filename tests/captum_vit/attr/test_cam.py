"""Token CAMs: what they are of each other and of Captum's methods, their options, where they are read."""

from __future__ import annotations

import copy

import pytest
import torch
from captum.attr import LayerGradientXActivation
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import captum_vit as cv
from tests.contracts.pairs import in_float64
from tests.models import CASES
from tests.references import cam
from tests.references.models import reference_images, reference_vit

TARGETS = [1, 4]
WEIGHTED = {
    cv.TokenGradCAM: cam.grad_cam,
    cv.TokenXGradCAM: cam.x_grad_cam,
    cv.TokenGradCAMPlusPlus: cam.grad_cam_plus_plus,
}
CAMS = [*WEIGHTED, cv.TokenHiResCAM, cv.TokenGradCAMElementWise, cv.TokenLayerCAM]
SIGNED = [cam for cam in CAMS if cam is not cv.TokenGradCAMElementWise]


@pytest.fixture
def model() -> VisionTransformer:
    return reference_vit(layer_scale=True)


@pytest.fixture
def images() -> Tensor:
    return reference_images()


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_hires_cam_is_gradient_x_input_at_that_layer(model: VisionTransformer, images: Tensor) -> None:
    for layer in ("blocks.0", "blocks.1.norm2", "blocks.2.norm1"):
        theirs = LayerGradientXActivation(model, model.get_submodule(layer)).attribute(images, target=TARGETS)
        close(cv.TokenHiResCAM(model, layer, output="tokens").attribute(images, target=TARGETS), theirs.sum(-1))
        close(cv.TokenHiResCAM(model, layer, output="channels").attribute(images, target=TARGETS), theirs)


@pytest.mark.parametrize("rule", ["grad", "frozen", "libra"])
def test_hires_cam_is_cdam_where_a_block_begins_to_attend(model: VisionTransformer, images: Tensor, rule: str) -> None:
    for layer in (None, 0, -2):
        ours = cv.TokenHiResCAM(model, layer, rule=rule).attribute(images, target=TARGETS)
        close(ours, cv.LayerCDAM(model, layer, rule=rule).attribute(images, target=TARGETS))


@pytest.mark.parametrize("method", CAMS)
def test_three_forms_of_one_layer(model: VisionTransformer, images: Tensor, method: type[cv.TokenAttribution]) -> None:
    by_index, by_name, by_module = (
        method(model, layer).attribute(images, target=TARGETS) for layer in (1, "blocks.1.norm1", model.blocks[1].norm1)
    )
    close(by_name, by_index)
    close(by_module, by_index)
    at_input = method(model, "blocks.1.attn").attribute(images, TARGETS, attribute_to_layer_input=True)
    close(at_input, by_index)


@pytest.mark.parametrize("method", CAMS)
def test_rectified_by_choice(model: VisionTransformer, images: Tensor, method: type[cv.TokenAttribution]) -> None:
    plain = method(model, 0).attribute(images, TARGETS)
    rectified = method(model, 0).attribute(images, TARGETS, relu_attributions=True)
    assert torch.equal(rectified, plain.clamp(min=0))
    assert (method in SIGNED) == bool((plain < 0).any())


@pytest.mark.parametrize("method", CAMS)
def test_plus_sums_maps_at_the_inputs_of_blocks(
    model: VisionTransformer, images: Tensor, method: type[cv.TokenAttribution]
) -> None:
    """Whatever layer the wrapped instance would read."""
    first = method(model, "blocks.0").attribute(images, target=TARGETS)
    close(cv.PLUS(method(model, 2), layers=[1]).attribute(images, target=TARGETS), first)
    # Unreduced: before the last block plain products cancel, and alone they would count as zero.
    one, other = (method(model, f"blocks.{i}", output="channels").attribute(images, TARGETS) for i in (0, 1))
    both = cv.PLUS(method(model, output="channels"), layers=[1, 2]).attribute(images, target=TARGETS)
    close(both, one + other)


def test_plus_over_hires_cam_is_cat(model: VisionTransformer, images: Tensor) -> None:
    for rule in ("grad", "frozen"):
        summed = cv.PLUS(cv.TokenHiResCAM(model, rule=rule)).attribute(images, target=TARGETS)
        close(summed, cv.CAT(model, rule=rule).attribute(images, target=TARGETS))


@pytest.mark.parametrize("method", [cv.TokenXGradCAM, cv.TokenGradCAMPlusPlus])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_signed_sums_equal_their_twins(
    model: VisionTransformer, images: Tensor, method: type[cv.TokenAttribution], layer: int
) -> None:
    """In double precision; in single precision such sums come near zero, or near a pole, too often."""
    found = method(model, layer, absolute=False, output="tokens").attribute(images, target=TARGETS)
    for row, image, target in zip(found, images, TARGETS, strict=True):
        wanted = WEIGHTED[method](model, image, target, layer, absolute=False)
        torch.testing.assert_close(row, wanted, rtol=1e-7, atol=1e-9 * wanted.abs().max().item())


@pytest.mark.parametrize("method", [cv.TokenXGradCAM, cv.TokenGradCAMPlusPlus])
def test_where_no_activation_is_negative_both_sums_are_one(
    model: VisionTransformer, images: Tensor, method: type[cv.TokenAttribution]
) -> None:
    """As in the networks that these methods were made for."""
    model.blocks[1].norm1.register_forward_hook(lambda module, args, output: output.abs())
    absolute, signed = (method(model, "blocks.1.norm1", absolute=a).attribute(images, TARGETS) for a in (True, False))
    close(absolute, signed)
    assert absolute.any()


@pytest.mark.parametrize("method", WEIGHTED)
def test_prefix_tokens_count_unless_left_out(
    model: VisionTransformer, images: Tensor, method: type[cv.TokenAttribution]
) -> None:
    with_cls, without = (
        method(model, output="tokens", include_prefix=p).attribute(images, TARGETS) for p in (True, False)
    )
    assert not torch.allclose(with_cls, without, rtol=1e-2)
    assert without[:, 0].all()


@pytest.mark.parametrize("method", WEIGHTED)
def test_registers_and_their_gradients_do_not_reach_the_patches_weights(method: type[cv.TokenAttribution]) -> None:
    """Of a model with registers, `include_prefix=False` leaves all of them out."""
    case = in_float64("timm ViT registers")
    made = method(case.forward_func, 1, include_prefix=False, output="channels")
    found = made.attribute(case.inputs, case.target)  # shape: (B, N, D)
    x = cv.from_layer(case.forward_func, "blocks.1.norm1").activation(case.inputs)
    weights = (found / x).median(1).values
    (grad,) = _gradients(case.forward_func, case.inputs, case.target)
    grad, a = grad[:, 5:], x[:, 5:].abs()
    by_hand = {
        cv.TokenGradCAM: grad.mean(1),
        cv.TokenXGradCAM: (a * grad).sum(1) / a.sum(1),
        cv.TokenGradCAMPlusPlus: (grad.clamp(min=0) / (2 + grad.clamp(min=0) * a.sum(1, keepdim=True))).sum(1),
    }[method]
    torch.testing.assert_close(weights, by_hand, rtol=1e-6, atol=1e-9)  # a small number keeps divisors from zero


def _gradients(model: torch.nn.Module, images: Tensor, target: list[int]) -> tuple[Tensor, ...]:
    f = cv.from_layer(model, "blocks.1.norm1")
    x = f.activation(images).requires_grad_()
    return torch.autograd.grad(f(x, images)[range(len(target)), target].sum(), x)


def test_signed_sums_are_ill_conditioned_in_half_precision() -> None:
    """Why the default takes sizes: the signed form loses its map to rounding, and no other way to sum would help."""

    def kept(absolute: bool) -> float:
        found = []
        for name in ("timm ViT", "HF ViT", "HF DeiT", "timm DINOv2"):
            case = CASES[name]()
            half = copy.deepcopy(case.forward_func).bfloat16()
            maps = [
                cv.TokenXGradCAM(m, absolute=absolute).attribute(case.inputs, case.target).flatten(1)
                for m in (case.forward_func, half)
            ]
            found.append(torch.stack([torch.corrcoef(torch.stack(rows))[0, 1] for rows in zip(*maps, strict=True)]))
        return torch.cat(found).min().item()

    assert kept(absolute=True) > 0.99
    assert kept(absolute=False) < 0.9
