"""The twins agree with the models, with each other, and with Captum where Captum has the method."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from captum.attr import LayerGradientXActivation
from torch import Tensor, nn
from torch.testing import assert_close

from tests.references import plus as bases
from tests.references.ablation import token_ablation
from tests.references.attention import attention_rollout, raw_attention
from tests.references.attention_gradient import (
    att_cam,
    att_cat,
    att_ixg,
    attn_grad,
    cat,
    gen_att,
    grad_sam,
    half_rollout,
    one_layer_gen_att,
)
from tests.references.cam import (
    grad_cam,
    grad_cam_element_wise,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    x_grad_cam,
)
from tests.references.cdam import cdam, cdam_channels, closed_form, integrated_cdam, smooth_cdam
from tests.references.decompx import decompose, decompx, token_part
from tests.references.forward import Sample, bert_forward, forward, run, value, vit_forward
from tests.references.input_gradient import input_x_gradient, integrated_gradients, saliency
from tests.references.lengths import alti, att_in, glob_enc
from tests.references.lrp import conservative_lrp, lrp, partial_lrp, trans_attr
from tests.references.models import (
    CLASSES,
    DEPTH,
    HEADS,
    WIDTH,
    reference_bert,
    reference_images,
    reference_sentences,
    reference_vit,
)
from tests.references.plus import plus, skip_plus
from tests.references.prediction_map import head_weights, predic_att, prediction_map, prediction_matrix
from tests.references.vtranm import transformation_weights, vtranm

pytestmark = pytest.mark.slow

TARGET = 3
EXACT = {"rtol": 1e-10, "atol": 1e-12}  # two ways to compute one thing
DIFFERENCES = {"rtol": 1e-7, "atol": 1e-9}  # against a quotient of differences
VITS = {"vit": reference_vit, "vit with LayerScale": lambda: reference_vit(layer_scale=True)}


@pytest.fixture(params=[*VITS, "bert", "bert, padded"])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Sample]:
    if request.param in VITS:
        return VITS[request.param](), reference_images()[0]
    input_ids, attention_mask = reference_sentences()
    row = int("padded" in request.param)
    return reference_bert(), (input_ids[row], attention_mask[row])


@pytest.fixture
def vit() -> tuple[nn.Module, Tensor]:
    return reference_vit(), reference_images()[0]


# ------------------------------------------------------------------------------------------------ the pass by hand


@pytest.mark.parametrize("make", VITS.values(), ids=VITS)
def test_vit_by_hand_is_the_model(make: Callable[[], nn.Module]):
    model, images = make(), reference_images()
    for image, logits in zip(images, model(images), strict=True):
        assert_close(vit_forward(model, image).logits, logits, rtol=0, atol=1e-12)


def test_bert_by_hand_is_the_model_on_a_padded_batch():
    model, (input_ids, attention_mask) = reference_bert(), reference_sentences()
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
    for row in range(len(input_ids)):
        by_hand = bert_forward(model, input_ids[row], attention_mask[row]).logits
        assert_close(by_hand, logits[row], rtol=0, atol=1e-12)


def test_attention_and_its_gradient_are_the_vits_own(vit):
    model, image = vit
    seen = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, args, a: seen.append(a))
    gradients = torch.autograd.grad(model(image[None])[0, TARGET], seen)
    p = vit_forward(*vit)
    by_hand = torch.autograd.grad(value(p, TARGET), [b.a for b in p.blocks])
    for block, a, gradient, expected in zip(p.blocks, seen, by_hand, gradients, strict=True):
        assert_close(block.a, a[0], **EXACT)
        assert_close(gradient, expected[0], **EXACT)


def test_attention_and_its_gradient_are_berts_own():
    model, (input_ids, attention_mask) = reference_bert(), reference_sentences()
    model.set_attn_implementation("eager")
    result = model(input_ids=input_ids, attention_mask=attention_mask, output_attentions=True)
    gradients = torch.autograd.grad(result.logits[1, TARGET], result.attentions)
    p = bert_forward(model, input_ids[1], attention_mask[1])
    by_hand = torch.autograd.grad(value(p, TARGET), [b.a for b in p.blocks])
    for block, a, gradient, expected in zip(p.blocks, result.attentions, by_hand, gradients, strict=True):
        assert_close(block.a, a[1], **EXACT)
        assert_close(gradient, expected[1], **EXACT)


def test_transformed_vectors_add_up_to_the_attention_branch(case):
    """VTranM eq. (6): sum_h A^h E~^h + b_O."""
    p = forward(*case)
    for w, block in zip(p.net.blocks, p.blocks, strict=True):
        total = sum(block.a[h] @ block.transformed[h] for h in range(HEADS)) + w.project.bias
        assert_close(total, block.attended, **EXACT)


# ------------------------------------------------------------------------------------------------------------ CDAM


def test_cdam_by_differences_is_the_closed_form(case):
    concept = torch.randn(WIDTH, dtype=torch.float64)
    for target in (TARGET, concept):
        assert_close(cdam(*case, target)[1:], closed_form(*case, target), **DIFFERENCES)


@pytest.mark.parametrize("layer", range(DEPTH))
def test_cdam_is_captums_layer_gradient_x_activation_of_norm1(vit, layer: int):
    model, image = vit
    captum = LayerGradientXActivation(model, model.blocks[layer].norm1)
    assert_close(cdam(*vit, TARGET, layer), captum.attribute(image[None], TARGET)[0].sum(-1), **DIFFERENCES)


@pytest.mark.parametrize("layer", range(DEPTH))
def test_cdam_of_bert_is_captums_at_the_blocks_input(layer: int):
    model, (input_ids, attention_mask) = reference_bert(), reference_sentences()
    before = [model.bert.embeddings, *model.bert.encoder.layer][layer]  # its output is the block's input
    captum = LayerGradientXActivation(lambda i, m: model(i, m).logits, before)
    expected = captum.attribute(input_ids, TARGET, additional_forward_args=(attention_mask,))
    for row in range(len(input_ids)):
        by_hand = cdam(model, (input_ids[row], attention_mask[row]), TARGET, layer)
        assert_close(by_hand, expected[row].sum(-1), **DIFFERENCES)


def test_cdam_by_entry_sums_to_cdam_by_token(vit):
    assert_close(cdam_channels(*vit, TARGET).sum(-1), cdam(*vit, TARGET), **DIFFERENCES)


def test_a_concept_equal_to_a_classifier_row_is_that_class(case):
    row = case[0].get_submodule("head" if hasattr(case[0], "head") else "classifier").weight[TARGET].detach()
    assert_close(cdam(*case, row), cdam(*case, TARGET), **DIFFERENCES)


def test_a_patch_that_cls_does_not_attend_to_scores_zero(vit):
    hidden = {DEPTH - 1: [4, 9]}
    scores = closed_form(*vit, TARGET, hide=hidden)  # begins behind CLS
    assert (scores[[3, 8]] == 0).all()
    assert (scores != 0).sum() == len(scores) - 2


def test_smooth_and_integrated_cdam_meet_cdam(vit):
    noise = torch.zeros(1, 17, WIDTH, dtype=torch.float64)
    assert_close(smooth_cdam(*vit, TARGET, noise), cdam(*vit, TARGET), **DIFFERENCES)
    baseline = torch.zeros(17, WIDTH, dtype=torch.float64)
    assert_close(integrated_cdam(*vit, TARGET, n_steps=1, baseline=baseline), cdam(*vit, TARGET), **DIFFERENCES)


def test_integrated_cdam_completes_over_all_tokens(vit):
    p = forward(*vit)
    without = run(p.net, p.blocks[-1].x, p.real, DEPTH - 1, t=torch.zeros_like(p.blocks[-1].t))
    difference = (p.logits - without.logits)[TARGET].item()
    coarse, fine = (integrated_cdam(*vit, TARGET, n_steps=n).sum().item() - difference for n in (4, 16))
    assert abs(fine) < 0.05 * abs(difference) and abs(fine) < abs(coarse) / 2


# ------------------------------------------------------------------------------------------------- prediction maps


def test_prediction_map_of_cls_at_the_last_block_is_the_models_output(case):
    logits = forward(*case).logits.detach()
    for target in range(CLASSES):
        assert_close(prediction_map(*case, target, score="logit")[0], logits[target], **EXACT)
        assert_close(prediction_map(*case, target)[0], logits.softmax(-1)[target], **EXACT)


def test_prediction_matrix_holds_distributions(case):
    p = forward(*case)
    for layer in range(DEPTH):
        assert_close(prediction_matrix(p, layer).sum(-1), p.real.double(), **EXACT)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_predic_att_weights_are_one_softmax_and_constant_maps_give_attention(case, similarity: str):
    p = forward(*case)
    psi = prediction_matrix(p)[:, TARGET]
    alpha = head_weights(p, psi, similarity)
    assert alpha.shape == (DEPTH, HEADS) and math.isclose(alpha.sum().item(), 1.0)
    combined = sum(alpha[l, h] * p.blocks[l].a[h, 0] for l in range(DEPTH) for h in range(HEADS)).detach()
    assert_close(predic_att(*case, TARGET, similarity=similarity), combined * psi, **EXACT)


def test_only_the_dot_product_feels_the_scale_of_the_prediction_map(vit):
    p = forward(*vit)
    psi = prediction_matrix(p)[:, TARGET]
    assert_close(head_weights(p, psi, "cosine"), head_weights(p, 9 * psi, "cosine"), **EXACT)
    assert not torch.allclose(head_weights(p, psi), head_weights(p, 9 * psi))


# -------------------------------------------------------------------------------- attention, its gradient, VTranM


@pytest.mark.parametrize("score", ["logit", "prob"])
def test_vtranm_with_unit_weights_is_gen_att(case, score: str):
    unit = vtranm(*case, TARGET, length=False, direction=False, feed_forward=False, score=score)
    assert_close(unit, gen_att(*case, TARGET, score), **EXACT)


def test_every_switch_of_vtranm_matters(case):
    parts = ("aggregate", "length", "direction", "feed_forward")
    maps = [vtranm(*case, TARGET), *(vtranm(*case, TARGET, **{part: False}) for part in parts)]
    maps = [m / m.sum() for m in maps]
    assert not any(torch.allclose(a, b, rtol=1e-6) for i, a in enumerate(maps) for b in maps[:i])


def test_vtranm_without_aggregation_is_the_first_blocks_update(case):
    baseline = vtranm(*case, TARGET, aggregate=False, score="logit")
    assert_close(baseline[1:], one_layer_gen_att(*case, TARGET, layer=0)[1:], **EXACT)


def test_necc_sums_to_one_within_its_bounds(case):
    p = forward(*case)
    attention, feed_forward = transformation_weights(p, length=False)
    n = p.real.sum()
    for weights in [*(w for heads in attention for w in heads), *feed_forward]:
        assert_close(weights.sum().item(), 1.0)
        assert (weights[p.real] * n >= math.exp(-2)).all() and (weights[p.real] * n <= math.exp(2)).all()


def test_rollout_and_raw_attention_are_distributions(case):
    for attention in (raw_attention(*case), attention_rollout(*case)):
        assert attention.min() >= 0 and math.isclose(attention.sum().item(), 1.0)


def test_cat_is_captums_gradient_x_input_of_every_block(vit):
    model, image = vit
    total = 0
    for block in model.blocks:
        captum = LayerGradientXActivation(model, block)
        total += captum.attribute(image[None], TARGET, attribute_to_layer_input=True)[0].sum(-1)
    assert_close(cat(*vit, TARGET), total, **EXACT)


# ----------------------------------------------------------------------------------------------- DecompX and PLUS


@pytest.mark.parametrize("start", range(DEPTH))
def test_decompx_and_the_biases_sum_to_the_logit(case, start: int):
    p = forward(*case)
    for target in (0, TARGET):
        assert_close(decompose(p, target, start).sum(), p.logits[target].detach(), **EXACT)


def test_decompx_gives_nothing_to_a_patch_that_nobody_reads(vit):
    p = forward(*vit, hide={l: [4] for l in range(DEPTH)})
    x = p.blocks[0].x.detach()
    assert (token_part(p, x, 4) == 0).all() and (token_part(p, x, 5) != 0).all()


def test_plus_of_known_bases_is_a_known_method(case):
    assert_close(plus(*case, TARGET, bases.input_x_gradient), cat(*case, TARGET), **EXACT)
    assert_close(plus(*case, TARGET, bases.gen_att_base), grad_sam(*case, TARGET), **EXACT)
    for alignment in ("output", "input"):
        layers = [att_ixg(*case, TARGET, l, alignment) for l in range(DEPTH)]
        assert_close(sum(layers), att_cat(*case, TARGET, alignment), **EXACT)


def test_half_and_half_rollout_is_gen_att_by_two_to_the_depth(case):
    assert_close(half_rollout(*case, TARGET) * 2**DEPTH, gen_att(*case, TARGET), **EXACT)


@pytest.mark.parametrize("case", ["vit with LayerScale", "bert, padded"], indirect=True)
def test_hires_cam_is_cdam_by_another_way(case):
    for layer in range(DEPTH):
        assert_close(hires_cam(*case, TARGET, layer), cdam(*case, TARGET, layer), **DIFFERENCES)
    total = sum(decompx(*case, TARGET, start) for start in range(DEPTH))
    assert_close(plus(*case, TARGET, bases.decompx_base), total, **EXACT)


def test_skip_plus_is_plus_without_the_first_half(vit):
    base = bases.input_x_gradient
    assert_close(skip_plus(*vit, TARGET, base), plus(*vit, TARGET, base, layers=[2]), **EXACT)  # ceil(3 / 2)
    assert_close(skip_plus(*vit, TARGET, base, start_layer=0), plus(*vit, TARGET, base), **EXACT)


# ------------------------------------------------------------------------------------------------------- all twins

ALL = {
    "cdam": cdam,
    "cdam, first block": lambda *args: cdam(*args, layer=0),
    "prediction_map": prediction_map,
    "predic_att": predic_att,
    "vtranm": vtranm,
    "token_ablation": token_ablation,
    "raw_attention": lambda model, sample, target: raw_attention(model, sample),
    "attention_rollout": lambda model, sample, target: attention_rollout(model, sample),
    "att_in": lambda model, sample, target: att_in(model, sample),
    "glob_enc": lambda model, sample, target: glob_enc(model, sample),
    "alti": lambda model, sample, target: alti(model, sample),
    "gen_att": gen_att,
    "grad_sam": grad_sam,
    "grad_sam of all rows": lambda model, sample, target: grad_sam(model, sample, target, "mean"),
    "attn_grad": attn_grad,
    "att_cam": att_cam,
    "att_ixg": att_ixg,
    "att_cat": att_cat,
    "grad_cam": grad_cam,
    "grad_cam_plus_plus": grad_cam_plus_plus,
    "x_grad_cam": x_grad_cam,
    "hires_cam": hires_cam,
    "grad_cam_element_wise": grad_cam_element_wise,
    "layer_cam": layer_cam,
    "saliency": saliency,
    "input_x_gradient": input_x_gradient,
    "integrated_gradients": lambda *args: integrated_gradients(*args, n_steps=8),
    "cat": cat,
    "decompx": decompx,
    "lrp": lrp,
    "partial_lrp": partial_lrp,
    "trans_attr": trans_attr,
    "conservative_lrp": conservative_lrp,
}


@pytest.mark.parametrize("twin", ALL.values(), ids=ALL)
def test_padding_scores_zero_and_changes_nothing_nor_does_the_twin(twin: Callable[..., Tensor]):
    model, (input_ids, attention_mask) = reference_bert(), reference_sentences()
    random = torch.random.get_rng_state()
    padded = twin(model, (input_ids[1], attention_mask[1]), TARGET)
    alone = twin(model, (input_ids[1, :6], attention_mask[1, :6]), TARGET)
    assert padded.dtype == torch.float64 and not padded.requires_grad
    assert (padded[6:] == 0).all()
    assert_close(padded[:6], alone, **EXACT)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(random, torch.random.get_rng_state())


def test_reference_models_are_the_same_every_time_and_leave_the_random_state():
    state = torch.random.get_rng_state()
    for make in (*VITS.values(), reference_bert):
        for a, b in pairwise([make(), make()]):
            assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
            assert all(p.abs().max() > 0.1 for p in a.parameters())
    assert torch.equal(state, torch.random.get_rng_state())
