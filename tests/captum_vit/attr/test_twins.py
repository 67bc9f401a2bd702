"""Every method against its slow twin: float64 to 1e-9 of the largest value, float32 to what rounding can change.

The twins follow the papers in loops, by hand, on one sample at a time; the package explains padded batches.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from captum.attr import Attribution, InputXGradient, IntegratedGradients, Saliency
from torch import Tensor, nn

import captum_vit as cv
from tests.contracts.closeness import assert_close_in_float32
from tests.references import (
    ablation,
    attention,
    attention_gradient,
    caap,
    cam,
    cdam,
    dave,
    decompx,
    full_grad,
    grad_eclip,
    input_gradient,
    legrad,
    lengths,
    lrp,
    plus,
    prediction_map,
    vtranm,
)
from tests.references.models import reference_bert, reference_images, reference_sentences, reference_vit

FLOAT64 = 1e-9
TARGETS = [1, 4]

Make = Callable[[nn.Module], Attribution]
Twin = Callable[[nn.Module, Any, int], Tensor]

TOKENS = {"output": "tokens"}
CAMS = {
    cv.TokenGradCAM: cam.grad_cam,
    cv.TokenGradCAMPlusPlus: cam.grad_cam_plus_plus,
    cv.TokenXGradCAM: cam.x_grad_cam,
    cv.TokenHiResCAM: cam.hires_cam,
    cv.TokenGradCAMElementWise: cam.grad_cam_element_wise,
    cv.TokenLayerCAM: cam.layer_cam,
}
PATCHES = [(" of patches", {"include_prefix": False})]
CAM_OPTIONS = {cv.TokenGradCAM: PATCHES, cv.TokenGradCAMPlusPlus: PATCHES, cv.TokenXGradCAM: PATCHES}
METHODS: dict[str, tuple[Make, Twin]] = {
    "LayerCDAM": (lambda m: cv.LayerCDAM(m, **TOKENS), cdam.cdam),
    "LayerCDAM at block 1": (lambda m: cv.LayerCDAM(m, 1, **TOKENS), lambda m, x, c: cdam.cdam(m, x, c, layer=1)),
    "LayerIntegratedCDAM": (lambda m: cv.LayerIntegratedCDAM(m, **TOKENS), cdam.integrated_cdam),
    "TokenAblation": (lambda m: cv.TokenAblation(m, **TOKENS), ablation.token_ablation),
    "TokenAblation of logits": (
        lambda m: cv.TokenAblation(m, score="logit", **TOKENS),
        lambda m, x, c: ablation.token_ablation(m, x, c, score="logit"),
    ),
    "CAAP": (lambda m: cv.CAAP(m, **TOKENS), caap.caap),
    "CAAP of blocks 1 and 2": (
        lambda m: cv.CAAP(m, layers=[1, 2], **TOKENS),
        lambda m, x, c: caap.caap(m, x, c, (1, 2)),
    ),
    "TokenEigenCAM": (lambda m: cv.TokenEigenCAM(m, **TOKENS), cam.eigen_cam),
    "TokenEigenCAM at block 0": (
        lambda m: cv.TokenEigenCAM(m, 0, **TOKENS),
        lambda m, x, c: cam.eigen_cam(m, x, c, 0),
    ),
    "PredictionMap": (lambda m: cv.PredictionMap(m, **TOKENS), prediction_map.prediction_map),
    "PredictionMap of logits at block 0": (
        lambda m: cv.PredictionMap(m, 0, score="logit", **TOKENS),
        lambda m, x, c: prediction_map.prediction_map(m, x, c, layer=0, score="logit"),
    ),
    "PredicAtt": (lambda m: cv.PredicAtt(m, **TOKENS), prediction_map.predic_att),
    "PredicAtt by cosine at block 1": (
        lambda m: cv.PredicAtt(m, 1, similarity="cosine", **TOKENS),
        lambda m, x, c: prediction_map.predic_att(m, x, c, layer=1, similarity="cosine"),
    ),
    **{
        f"PredicAtt with {options}": (
            lambda m, options=options: cv.PredicAtt(m, **options, **TOKENS),
            lambda m, x, c, options=options: prediction_map.predic_att(m, x, c, **options),
        )
        for options in (
            {"attention": "mean", "prediction": False},
            {"prediction": False},
            {"attention": "mean"},
            {"attention_layers": [0, 2], "temperature": 0.1},
            {"attention_layers": [1], "similarity": "cosine", "temperature": 3.0},
        )
    },
    "VTranM": (lambda m: cv.VTranM(m, **TOKENS), vtranm.vtranm),
    "VTranM as TokenTM": (lambda m: cv.VTranM(m, variant="tokentm", **TOKENS), vtranm.tokentm),
    "VTranM of logits": (
        lambda m: cv.VTranM(m, score="logit", **TOKENS),
        lambda m, x, c: vtranm.vtranm(m, x, c, score="logit"),
    ),
    **{
        f"VTranM without {switch}": (
            lambda m, switch=switch: cv.VTranM(m, **{switch: False}, **TOKENS),
            lambda m, x, c, switch=switch: vtranm.vtranm(m, x, c, **{switch: False}),
        )
        for switch in ("aggregate", "length", "direction", "feed_forward")
    },
    "DecompX": (lambda m: cv.DecompX(m, **TOKENS), decompx.decompx),
    "DecompX from block 2": (lambda m: cv.DecompX(m, 2, **TOKENS), lambda m, x, c: decompx.decompx(m, x, c, start=2)),
    "PLUS(DecompX)": (
        lambda m: cv.PLUS(cv.DecompX(m, **TOKENS)),
        lambda m, x, c: plus.plus(m, x, c, plus.decompx_base),
    ),
    "SkipPLUS(DecompX)": (
        lambda m: cv.SkipPLUS(cv.DecompX(m, **TOKENS)),
        lambda m, x, c: plus.skip_plus(m, x, c, plus.decompx_base),
    ),
    "PLUS(GenAtt) on layers 0 and 2": (
        lambda m: cv.PLUS(cv.GenAtt(m, **TOKENS), layers=[0, 2]),
        lambda m, x, c: plus.plus(m, x, c, plus.gen_att_base, [0, 2]),
    ),
    "CAT": (lambda m: cv.CAT(m, **TOKENS), attention_gradient.cat),
    "ConservativeLRP": (lambda m: cv.ConservativeLRP(m, **TOKENS), lrp.conservative_lrp),
    "ConservativeLRP from block 2": (
        lambda m: cv.ConservativeLRP(m, 2, **TOKENS),
        lambda m, x, c: lrp.conservative_lrp(m, x, c, start=2),
    ),
    "FullGrad": (lambda m: cv.FullGrad(m, **TOKENS), full_grad.full_grad),
    "FullGradPlus": (lambda m: cv.FullGradPlus(m, **TOKENS), full_grad.full_grad_plus),
    **{
        f"{method.__name__} from block {start} under the {rule} rule": (
            lambda m, method=method, start=start, rule=rule: method(m, start, rule=rule, **TOKENS),
            lambda m, x, c, twin=twin, start=start, rule=rule: twin(m, x, c, start, rule),
        )
        for method, twin in ((cv.FullGrad, full_grad.full_grad), (cv.FullGradPlus, full_grad.full_grad_plus))
        for start, rule in ((0, "frozen"), (1, "grad"), (1, "frozen"))
    },
    "GenAtt": (lambda m: cv.GenAtt(m, **TOKENS), attention_gradient.gen_att),
    "GradSAM": (lambda m: cv.GradSAM(m, **TOKENS), attention_gradient.grad_sam),
    "GradSAM of all rows": (
        lambda m: cv.GradSAM(m, rows="mean", **TOKENS),
        lambda m, x, c: attention_gradient.grad_sam(m, x, c, rows="mean"),
    ),
    **{
        f"LeGrad by {read} of {layers or 'all'}": (
            lambda m, read=read, layers=layers: cv.LeGrad(m, readout=read, layers=layers or None, **TOKENS),
            lambda m, x, c, read=read, layers=layers: legrad.legrad(m, x, c, read, layers),
        )
        for read, layers in (("head", ()), ("mean", ()), ("head", (1, 2)))
    },
    **{
        f"GradECLIP of {layers}, {'cosine' if cosine else 'none'}{', signed' if signed else ''}": (
            lambda m, layers=layers, cosine=cosine, signed=signed: cv.GradECLIP(
                m, layers=layers, weights="cosine" if cosine else "none", signed=signed, **TOKENS
            ),
            lambda m, x, c, given=(layers, cosine, signed): grad_eclip.grad_eclip(m, x, c, *given),
        )
        for layers, cosine, signed in (((-1,), True, False), ((1, 2), True, True), ((0,), False, True))
    },
    "AttnGrad": (lambda m: cv.AttnGrad(m, **TOKENS), attention_gradient.attn_grad),
    "AttnGrad in size at block 1": (
        lambda m: cv.AttnGrad(m, 1, heads="abs", **TOKENS),
        lambda m, x, c: attention_gradient.attn_grad(m, x, c, 1, "abs"),
    ),
    "AttCAM": (lambda m: cv.AttCAM(m, **TOKENS), attention_gradient.att_cam),
    "AttCAM at block 0": (
        lambda m: cv.AttCAM(m, 0, **TOKENS),
        lambda m, x, c: attention_gradient.att_cam(m, x, c, 0),
    ),
    "AttIxG": (lambda m: cv.AttIxG(m, **TOKENS), attention_gradient.att_ixg),
    "AttIxG with inputs at block 1": (
        lambda m: cv.AttIxG(m, 1, alignment="input", **TOKENS),
        lambda m, x, c: attention_gradient.att_ixg(m, x, c, 1, "input"),
    ),
    "AttCAT": (lambda m: cv.AttCAT(m, **TOKENS), attention_gradient.att_cat),
    "AttCAT with inputs": (
        lambda m: cv.AttCAT(m, alignment="input", **TOKENS),
        lambda m, x, c: attention_gradient.att_cat(m, x, c, "input"),
    ),
    "AttCAT with inputs from block 1": (
        lambda m: cv.AttCAT(m, 1, alignment="input", **TOKENS),
        lambda m, x, c: attention_gradient.att_cat(m, x, c, "input", start=1),
    ),
    **{
        f"{method.__name__}{place}": (
            lambda m, method=method, options=options: method(m, **options, **TOKENS),
            lambda m, x, c, twin=twin, options=options: twin(m, x, c, **options),
        )
        for method, twin in CAMS.items()
        for place, options in (
            ("", {}),
            (" at block 1", {"layer": 1}),
            *CAM_OPTIONS.get(method, ()),
        )
    },
    "VanillaGrad": (lambda m: cv.VanillaGrad(m, **TOKENS), input_gradient.vanilla_grad),
    "PLUS(VanillaGrad)": (
        lambda m: cv.PLUS(cv.VanillaGrad(m, **TOKENS)),
        lambda m, x, c: plus.plus(m, x, c, input_gradient.vanilla_grad_base),
    ),
    "Saliency": (lambda m: cv.InputGradient(m, Saliency, **TOKENS), input_gradient.saliency),
    "InputXGradient": (lambda m: cv.InputGradient(m, InputXGradient, **TOKENS), input_gradient.input_x_gradient),
    "IntegratedGradients": (
        lambda m: cv.InputGradient(m, IntegratedGradients, n_steps=8, **TOKENS),
        partial(input_gradient.integrated_gradients, n_steps=8),
    ),
    "RawAttention": (lambda m: cv.RawAttention(m, **TOKENS), lambda m, x, c: attention.raw_attention(m, x)),
    "RawAttention of a head at block 1": (
        lambda m: cv.RawAttention(m, 1, head=-1, **TOKENS),
        lambda m, x, c: attention.raw_attention(m, x, layer=1, head=2),
    ),
    "AttentionRollout from block 1": (
        lambda m: cv.AttentionRollout(m, 1, **TOKENS),
        lambda m, x, c: attention.attention_rollout(m, x, start=1),
    ),
    "AttentionRollout": (
        lambda m: cv.AttentionRollout(m, **TOKENS),
        lambda m, x, c: attention.attention_rollout(m, x),
    ),
    **{
        f"{method.__name__} with {options}": (
            lambda m, method=method, options=options: method(m, **options, **TOKENS),
            lambda m, x, c, twin=twin, options=options: twin(m, x, **options),
        )
        for method, twin, special in (
            (cv.AttIN, lengths.att_in, {}),
            (cv.GlobEnc, lengths.glob_enc, {"include_ln2": True}),
            (cv.GlobEnc, lengths.glob_enc, {"include_ln2": False}),
        )
        for options in ({}, *({"aggregation": how} | special for how in ("rollout", "sum", "last")))
    },
    **{
        f"ALTI by {norm}, {how}": (
            lambda m, norm=norm, how=how: cv.ALTI(m, norm=norm, aggregation=how, **TOKENS),
            lambda m, x, c, norm=norm, how=how: lengths.alti(m, x, how, int(norm[1])),
        )
        for norm in ("l1", "l2")
        for how in ("rollout", "sum", "last")
    },
}
GRIDS: dict[str, tuple[Make, Twin]] = {
    "DAVE": (lambda m: cv.DAVE(m, n_samples=3), dave.dave),
    "PLUS(InputXGradient)": (
        lambda m: cv.PLUS(InputXGradient(m)),
        lambda m, x, c: plus.plus(m, x, c, plus.input_x_gradient),
    ),
    # From the last block alone the patches' map would be nothing but rounding: LayerNorm is free of scale.
    "SkipPLUS(InputXGradient) from block 1": (
        lambda m: cv.SkipPLUS(InputXGradient(m), start_layer=1),
        lambda m, x, c: plus.skip_plus(m, x, c, plus.input_x_gradient, start_layer=1),
    ),
}


@cache
def vit_samples() -> tuple[nn.Module, Tensor, tuple, list[Any]]:
    images = reference_images()
    return reference_vit(layer_scale=True), images, (), list(images)


@cache
def bert_samples() -> tuple[nn.Module, Tensor, tuple, list[Any]]:
    ids, mask = reference_sentences()
    return reference_bert(), ids, (mask,), list(zip(ids, mask, strict=True))


@cache
def in_float32(samples: Callable) -> nn.Module:
    return copy.deepcopy(samples()[0]).float()


def error(found: Tensor, wanted: Tensor) -> float:
    """The largest difference by the largest value, over each sample."""
    difference = (found.double() - wanted).flatten(1).abs().amax(1) / wanted.flatten(1).abs().amax(1)
    return difference.max().item()


@pytest.mark.slow
@pytest.mark.parametrize("samples", [vit_samples, bert_samples])
@pytest.mark.parametrize("name", METHODS)
def test_token_maps_equal_their_twins(name: str, samples: Callable) -> None:
    make, twin = METHODS[name]
    model, _, _, singles = samples()
    wanted = torch.stack([twin(model, x, c) for x, c in zip(singles, TARGETS, strict=True)])
    _compare(make, samples, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS)
def test_grids_equal_their_twins(name: str) -> None:
    make, twin = GRIDS[name]
    model, _, _, singles = vit_samples()
    wanted = torch.stack([twin(model, x, c) for x, c in zip(singles, TARGETS, strict=True)])
    _compare(make, vit_samples, wanted[:, 1:].unflatten(1, (1, 4, 4)))


def _compare(make: Make, samples: Callable, wanted: Tensor) -> None:
    model, inputs, args, _ = samples()

    def explained(model: nn.Module, inputs: Tensor) -> Tensor:
        return make(model).attribute(inputs, target=TARGETS, additional_forward_args=args or None)

    found = explained(model, inputs)
    assert found.dtype == torch.float64
    assert error(found, wanted) < FLOAT64
    assert_close_in_float32(explained(in_float32(samples), inputs), found, explained, model, inputs)


def test_concept_cdam_is_class_cdam_where_the_concept_is_the_class_weight() -> None:
    model, inputs, _, _ = vit_samples()
    concept = cv.ConceptSimilarity(model, model.head.weight.detach())
    ours = cv.LayerCDAM(concept).attribute(inputs, target=TARGETS)
    torch.testing.assert_close(ours, cv.LayerCDAM(model).attribute(inputs, target=TARGETS), rtol=1e-12, atol=1e-12)


def test_skip_plus_starts_in_the_middle() -> None:
    model, inputs, _, _ = vit_samples()
    depth = len(model.blocks)
    late = cv.PLUS(cv.DecompX(model), layers=range(math.ceil(depth / 2), depth)).attribute(inputs, target=1)
    early = cv.PLUS(cv.DecompX(model), layers=range(math.ceil(depth / 2))).attribute(inputs, target=1)
    torch.testing.assert_close(cv.SkipPLUS(cv.DecompX(model)).attribute(inputs, target=1), late)
    torch.testing.assert_close(cv.PLUS(cv.DecompX(model)).attribute(inputs, target=1), late + early)
    torch.testing.assert_close(cv.SkipPLUS(cv.DecompX(model), start_layer=0).attribute(inputs, target=1), late + early)
