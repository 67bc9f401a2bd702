"""Attention, attention with its gradient, and attention with gradient x input: identities, options, refusals."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import captum_vit as cv
from captum_vit.trace.record.evidence import of_attention
from captum_vit.trace.record.record import Want, record
from captum_vit.trace.record.rollout import rolled_out
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import in_float64
from tests.models import CASES
from tests.references.models import DEPTH, HEADS, reference_images, reference_vit

TARGETS = [1, 4]
OF_A_BLOCK = [cv.RawAttention, cv.AttnGrad, cv.AttCAM, cv.AttIxG]


@pytest.fixture
def model() -> VisionTransformer:
    return reference_vit(layer_scale=True)


@pytest.fixture
def images() -> Tensor:
    return reference_images()


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


# -- identities ------------------------------------------------------------------------------------------------


def test_plus_over_gen_att_is_grad_sam(model: VisionTransformer, images: Tensor) -> None:
    for of in (cv.GenAtt(model), cv.GradSAM(model)):
        close(cv.PLUS(of).attribute(images, target=TARGETS), cv.GradSAM(model).attribute(images, target=TARGETS))


@pytest.mark.parametrize("alignment", ["output", "input"])
def test_plus_over_att_ixg_is_att_cat(model: VisionTransformer, images: Tensor, alignment: str) -> None:
    summed = cv.PLUS(cv.AttIxG(model, alignment=alignment)).attribute(images, target=TARGETS)
    close(summed, cv.AttCAT(model, alignment=alignment).attribute(images, target=TARGETS))
    late = cv.SkipPLUS(cv.AttIxG(model, alignment=alignment), 1).attribute(images, target=TARGETS)
    close(late, cv.AttCAT(model, 1, alignment=alignment).attribute(images, target=TARGETS))


@pytest.mark.parametrize("method", OF_A_BLOCK)
def test_plus_sums_the_maps_of_blocks(
    model: VisionTransformer, images: Tensor, method: type[cv.TokenAttribution]
) -> None:
    # Products unreduced: what leaves the second block cancels in their sum, and would count as zero alone.
    output = "channels" if "channels" in method.outputs else "grid"
    two = sum(method(model, layer, output=output).attribute(images, target=TARGETS) for layer in (0, 1))
    close(cv.PLUS(method(model, 1, output=output), layers=[0, 1]).attribute(images, target=TARGETS), two)


def test_half_and_half_rollout_of_gen_atts_maps_is_gen_att_by_two_to_the_depth(
    model: VisionTransformer, images: Tensor
) -> None:
    with undisturbed(model):
        want = Want(seen=["probs"], grads=["probs"], row="outputs")
        found = record(Pass(model, (images,), (), cv.spec_of(model, images)), TARGETS, want)
    halves = rolled_out(
        found, lambda row, layer: of_attention(layer).back(row, found.attention(layer)), stream=0.5, branch=0.5
    )
    close(halves * 2**DEPTH, cv.GenAtt(model, output="tokens").attribute(images, target=TARGETS))


def test_the_last_blocks_mean_row_is_the_cls_row_by_n(model: VisionTransformer, images: Tensor) -> None:
    """In a CLS-pooled model no other row of the last block has a gradient; before it others have."""
    last, first = (
        [cv.PLUS(cv.GradSAM(model, rows=rows), layers=[layer]).attribute(images, target=TARGETS)
         for rows in ("cls", "mean")] for layer in (-1, 0)
    )  # fmt: skip
    close(last[0], 17 * last[1])
    assert not torch.allclose(first[0], 17 * first[1], rtol=1e-2)


def test_heads_average_to_raw_attention(model: VisionTransformer, images: Tensor) -> None:
    for layer in range(DEPTH):
        heads = [cv.RawAttention(model, layer, head=h).attribute(images) for h in range(HEADS)]
        close(sum(heads) / HEADS, cv.RawAttention(model, layer).attribute(images))
        close(cv.RawAttention(model, layer, head=-1).attribute(images), heads[-1])
    assert not torch.allclose(heads[0], heads[1], rtol=1e-2)


def test_without_cls_it_is_the_rows_that_the_pooling_reads() -> None:
    """Mean pooling over the patches: the mean of their rows, for attention and for its gradient."""
    case = in_float64("timm ViT mean, no CLS")
    model = case.forward_func
    with undisturbed(model):
        want = Want(seen=["probs"], grads=["probs"])
        found = record(Pass(model, (case.inputs,), (), cv.spec_of(model, case.inputs)), case.target, want)
    A, G = found.seen["probs"][1], found.grads["probs"][1]
    wanted = {
        cv.RawAttention(model, 1, head=2, output="tokens"): A[:, 2].mean(1),
        cv.AttnGrad(model, 1, output="tokens"): G.mean((1, 2)),
        cv.AttnGrad(model, 1, heads="abs", output="tokens"): G.abs().mean((1, 2)),
        cv.AttCAM(model, 1, output="tokens"): (G.mean(3, keepdim=True) * A).mean((1, 2)),
    }
    for method, by_hand in wanted.items():
        found_map = method.attribute(case.inputs, target=case.target)
        assert_close(found_map, by_hand, "float64")


def test_absolute_gradients_bound_their_mean(model: VisionTransformer, images: Tensor) -> None:
    sizes = cv.AttnGrad(model, heads="abs").attribute(images, target=TARGETS)
    assert (sizes >= cv.AttnGrad(model).attribute(images, target=TARGETS).abs()).all()


@pytest.mark.filterwarnings("ignore::captum_vit.ZeroMapWarning")  # where nothing was positive
def test_att_cam_is_rectified_by_choice(model: VisionTransformer, images: Tensor) -> None:
    signed = [cv.AttCAM(model, layer).attribute(images, TARGETS) for layer in range(DEPTH)]
    assert any((s < 0).any() for s in signed)
    for layer in range(DEPTH):
        rectified = cv.AttCAM(model, layer).attribute(images, TARGETS, relu_attributions=True)
        assert torch.equal(rectified, signed[layer].clamp(min=0))


# -- which block ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", OF_A_BLOCK)
def test_a_block_may_be_named_in_three_forms(
    model: VisionTransformer, images: Tensor, method: type[cv.TokenAttribution]
) -> None:
    wanted = method(model, 1).attribute(images, target=TARGETS)
    for layer in (-2, "blocks.1", model.blocks[1], "blocks.1.attn", model.blocks[1].norm1):
        assert torch.equal(method(model, layer).attribute(images, target=TARGETS), wanted)


@pytest.mark.parametrize("layer", ["patch_embed", "norm", "blocks", "blocks.9", 3, 1.5, True, reference_vit()], ids=str)
@pytest.mark.parametrize("method", OF_A_BLOCK)
def test_what_is_no_block_is_refused(model: VisionTransformer, images: Tensor, method: type, layer: object) -> None:
    with pytest.raises(cv.LayerError) as refused:
        method(model, layer).attribute(images, target=TARGETS)
    assert refused.value.got


def test_a_block_whose_patches_get_no_gradient(model: VisionTransformer, images: Tensor) -> None:
    """What leaves the last block of a CLS-pooled model; AttCAT counts it, and it adds nothing."""
    with pytest.raises(cv.LayerError, match="alignment"):
        cv.AttIxG(model, -1).attribute(images, target=TARGETS)
    without = cv.PLUS(cv.AttIxG(model), layers=range(DEPTH - 1)).attribute(images, target=TARGETS)
    assert torch.equal(cv.AttCAT(model).attribute(images, target=TARGETS), without)
    pooled = CASES["timm ViT mean"]()
    assert cv.AttIxG(pooled.forward_func, -1).attribute(pooled.inputs, target=pooled.target).any()


@pytest.mark.parametrize("head", [HEADS, -HEADS - 1])
def test_a_head_that_is_not_there(model: VisionTransformer, images: Tensor, head: int) -> None:
    with pytest.raises(cv.OptionError, match="from 0 to 2"):
        cv.RawAttention(model, head=head).attribute(images)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: cv.RawAttention(m, head=1.0),
        lambda m: cv.RawAttention(m, head=True),
        lambda m: cv.GradSAM(m, rows="all"),
        lambda m: cv.AttnGrad(m, heads="max"),
        lambda m: cv.AttIxG(m, alignment="both"),
        lambda m: cv.AttCAT(m, alignment="none"),
    ],
)
def test_options_are_refused_before_the_model_runs(model: VisionTransformer, make) -> None:
    with pytest.raises(cv.OptionError):
        make(model)
