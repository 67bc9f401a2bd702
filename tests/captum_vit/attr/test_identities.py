"""What must hold between methods, and between a method and Captum's, whatever the weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captum.attr import InputXGradient, LayerGradientXActivation
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import captum_vit as cv
from tests.references.models import reference_images, reference_vit

TARGETS = [1, 4]


@pytest.fixture
def model() -> VisionTransformer:
    return reference_vit()


@pytest.fixture
def images() -> Tensor:
    return reference_images()


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_cdam_is_captums_gradient_x_activation_summed(
    model: VisionTransformer, images: Tensor, measured: Callable[[Tensor, Tensor], float]
) -> None:
    theirs = LayerGradientXActivation(model, model.blocks[-1].norm1).attribute(images, target=TARGETS)
    assert measured(cv.LayerCDAM(model, output="tokens").attribute(images, target=TARGETS), theirs.sum(-1)) < 1e-12
    close(cv.LayerCDAM(model, "blocks.2.norm1", output="channels").attribute(images, target=TARGETS), theirs)


def test_cdam_forgets_what_nobody_attends_to(images: Tensor) -> None:
    """A patch without attention in the last block scores exactly zero on a CLS-pooled model."""
    model = Hiding(reference_vit(), hidden=[4, 9]).eval()
    found = cv.LayerCDAM(model, output="tokens").attribute(images, target=TARGETS)
    assert (found[:, [4, 9]] == 0).all()
    assert (found[:, [3, 5]] != 0).all()


def test_gradient_x_input_vanishes_before_the_last_norm_of_a_cls_model(images: Tensor) -> None:
    """LayerNorm is free of scale, so only CDAM's reading point carries a map; mean pooling is another matter."""

    def at_last_input(model: VisionTransformer) -> Tensor:
        product = LayerGradientXActivation(model, model.blocks[-1]).attribute(
            images, target=TARGETS, attribute_to_layer_input=True
        )
        return product.sum(-1)[:, 1:].abs().max() / product.abs().max()

    assert at_last_input(reference_vit()) < 1e-5  # what the epsilon of the norm leaves
    cdam = cv.LayerCDAM(reference_vit(), output="tokens").attribute(images, target=TARGETS)
    assert cdam[:, 1:].abs().max() > 0.1 * cdam.abs().max()
    pooled = reference_vit()
    pooled.global_pool = "avg"
    assert at_last_input(pooled) > 1e-2


def test_plus_over_input_x_gradient_is_cat(model: VisionTransformer, images: Tensor) -> None:
    ours = cv.PLUS(InputXGradient(model)).attribute(images, target=TARGETS)
    torch.testing.assert_close(ours, cv.CAT(model).attribute(images, target=TARGETS), rtol=1e-8, atol=1e-10)


def test_vtranm_with_unit_weights_is_gen_att(model: VisionTransformer, images: Tensor) -> None:
    plain = cv.VTranM(model, score="logit", length=False, direction=False, feed_forward=False)
    close(plain.attribute(images, target=TARGETS), cv.GenAtt(model).attribute(images, target=TARGETS))


def test_the_prediction_map_of_cls_is_the_prediction(model: VisionTransformer, images: Tensor) -> None:
    logits = model(images)
    for score, wanted in (("logit", logits), ("prob", logits.softmax(-1))):
        every = cv.PredictionMap(model, score=score, output="tokens").all_classes(images)
        close(every[:, 0], wanted)
        close(every.gather(2, torch.tensor(TARGETS).view(2, 1, 1).expand(-1, 17, -1)).squeeze(2),
              cv.PredictionMap(model, score=score, output="tokens").attribute(images, target=TARGETS))  # fmt: skip


def test_readings_as_probabilities_sum_to_one(model: VisionTransformer, images: Tensor) -> None:
    every = cv.PredictionMap(model).all_classes(images)
    close(every.sum(1), torch.ones_like(every[:, 0]))


def test_raw_attention_and_rollout_share_out_one(model: VisionTransformer, images: Tensor) -> None:
    for method in (cv.RawAttention, cv.AttentionRollout):
        found = method(model, output="tokens").attribute(images)
        close(found.sum(1), torch.ones(2, dtype=torch.float64))


def test_decompx_leaves_only_biases_unexplained(model: VisionTransformer, images: Tensor) -> None:
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.zero_()
        logits = model(images).gather(1, torch.tensor(TARGETS).unsqueeze(1)).squeeze(1)
    for start in range(3):
        found = cv.DecompX(model, start, output="tokens").attribute(images, target=TARGETS)
        close(found.sum(1), logits)


class Hiding(nn.Module):
    """A model in which some patches are attended to by nobody, as a user's wrapper would do it."""

    def __init__(self, model: VisionTransformer, hidden: list[int]) -> None:
        super().__init__()
        self.model, self.hidden = model, hidden

    def forward(self, images: Tensor) -> Tensor:
        n = self.model.patch_embed.num_patches + 1
        mask = torch.zeros(len(images), 1, n, n, dtype=images.dtype)
        mask[..., self.hidden] = -torch.inf
        return self.model(images, attn_mask=mask)


# -- CDAM ------------------------------------------------------------------------------------------------------


def test_all_cdams_agree_where_the_tail_is_linear(model: VisionTransformer, images: Tensor) -> None:
    """Attention that depends on no token, no feed-forward, no norm behind: one gradient all along the way."""
    last = model.blocks[-1]
    with torch.no_grad():
        last.attn.qkv.weight[: 2 * model.embed_dim] = 0  # queries and keys
        last.mlp.fc2.weight.zero_()
    model.norm = nn.Identity().eval()
    wanted = cv.LayerCDAM(model).attribute(images, target=TARGETS)
    close(cv.LayerIntegratedCDAM(model).attribute(images, target=TARGETS, n_steps=3), wanted)
    close(cv.LayerCDAM(model, rule="frozen").attribute(images, target=TARGETS), wanted)


def test_what_lies_before_the_last_norm_has_no_part_in_cdam(model: VisionTransformer, images: Tensor) -> None:
    """The gradient ends at the tokens that attention reads, so a detached stream changes nothing."""
    wanted = cv.LayerCDAM(model).attribute(images, target=TARGETS)
    model.blocks[-1].register_forward_pre_hook(lambda module, args: (args[0].detach(), *args[1:]))
    close(cv.LayerCDAM(model).attribute(images, target=TARGETS), wanted)
    theirs = LayerGradientXActivation(model, model.blocks[-1].norm1).attribute(images, target=TARGETS)
    close(wanted.flatten(1), theirs[:, 1:].sum(-1))


# -- PLUS ------------------------------------------------------------------------------------------------------


def test_plus_is_the_sum_over_single_starts(model: VisionTransformer, images: Tensor) -> None:
    starts = [cv.DecompX(model, start).attribute(images, target=TARGETS) for start in range(3)]
    close(cv.PLUS(cv.DecompX(model)).attribute(images, target=TARGETS), sum(starts))
    for start in range(3):
        alone = cv.PLUS(cv.DecompX(model), layers=[start]).attribute(images, target=TARGETS)
        close(alone, starts[start])
