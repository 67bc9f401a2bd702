"""Captum's own tools run on every method: noise tunnels, metrics, pictures, concepts."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, LayerGradientXActivation, NoiseTunnel
from captum.attr import visualization as viz
from captum.concept import TCAV, Concept
from captum.metrics import infidelity, sensitivity_max
from torch.utils.data import DataLoader

import captum_vit as cv
from tests.contracts.closeness import TOLERANCE, assert_close
from tests.contracts.pairs import Pair, draws, explain, half_precision, in_float64, rows
from tests.models import CASES, TEXTS


def arguments(case):
    return {"target": case.target, "additional_forward_args": case.additional_forward_args or None}


@pytest.mark.along("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel_without_noise_changes_nothing(image_pair, nt_type):
    """Also with CLIP, whose bank of texts is larger than the batch; in uneven parts."""
    case = image_pair.exact
    method = image_pair.on(case.forward_func)
    found = NoiseTunnel(method).attribute(
        case.inputs, nt_type=nt_type, nt_samples=3, nt_samples_batch_size=2, stdevs=0.0, **arguments(case)
    )
    plain = explain(method, case)
    assert found.shape == plain.shape
    if draws(method):
        return
    wanted = {"smoothgrad": plain, "smoothgrad_sq": plain**2, "vargrad": torch.zeros_like(plain)}[nt_type]
    if nt_type == "vargrad":
        assert found.abs().max() <= TOLERANCE[image_pair.rounding] * plain.abs().max() ** 2
    else:
        assert_close(found, wanted, image_pair.rounding)


def test_noise_tunnel_on_a_half_precision_model(slice_pair):
    """The noise is float32 whatever the model is."""
    if slice_pair.model in TEXTS:
        return
    torch.manual_seed(0)
    tunnel = NoiseTunnel(slice_pair.on(half(slice_pair.model)))
    case = slice_pair.case
    with half_precision(slice_pair.method):
        found = tunnel.attribute(case.inputs.bfloat16(), nt_samples=2, stdevs=0.1, target=case.target)
        assert found.dtype == torch.float32 and torch.isfinite(found).all() and found.any()


def half(name):
    return copy.deepcopy(CASES[name]().forward_func).bfloat16()


def shifted(inputs):
    """The first perturbation of each sample adds a ramp, the second takes it away."""
    (x,) = inputs if isinstance(inputs, tuple) else (inputs,)
    ramp = torch.linspace(-0.5, 0.5, x[0].numel(), dtype=x.dtype).view_as(x[0])
    signs = torch.tensor([1.0, -1.0], dtype=x.dtype).repeat(len(x) // 2).view(-1, *[1] * (x.dim() - 1))
    return (x + signs * ramp,)


@pytest.mark.slow
@pytest.mark.along("batch", [1, 3])
def test_sensitivity_max_equals_a_hand_computation(image_pair, batch):
    """Captum expands samples, targets and arguments together, and passes tuples."""
    case = rows(image_pair.exact, slice(0, batch))
    method = image_pair.on(case.forward_func)
    if draws(method):
        return
    found = sensitivity_max(method.attribute, case.inputs, shifted, n_perturb_samples=2, **arguments(case))

    plain, wanted = explain(method, case), []
    for sign in (1, -1):
        ramp = torch.linspace(-0.5, 0.5, case.inputs[0].numel(), dtype=torch.float64).view_as(case.inputs[0])
        moved = explain(method, case, inputs=case.inputs + sign * ramp)
        wanted.append((moved - plain).flatten(1).norm(dim=1) / plain.flatten(1).norm(dim=1))
    assert_close(found, torch.stack(wanted).amax(0), image_pair.rounding)


@pytest.mark.along("kind", ["heat_map", "blended_heat_map"])
def test_pictures_are_drawn_headless(image_pair, kind):
    method, case = image_pair.on(), image_pair.case
    method.output = "pixels"
    heat = explain(method, case)[0].permute(1, 2, 0).numpy()
    photo = np.full((*heat.shape[:2], 3), 0.5)
    sign = {"heat_map": "all", "blended_heat_map": "absolute_value"}[kind]
    figure, _ = viz.visualize_image_attr(heat, photo, kind, sign, use_pyplot=False)
    assert figure is not None
    plt.close("all")


def test_words_are_drawn():
    """One relevance for each token, in [-1, 1], as Captum's colours for words take it."""
    case = CASES["HF BERT"]()
    found = explain(cv.LayerCDAM(case.forward_func), case)[0]
    html = viz.format_word_importances([f"word{i}" for i in range(len(found))], found / found.abs().max())
    assert html.count("<mark") == html.count(" word") == len(found)


LAYERS = {
    "timm ViT": "blocks.2.norm1",
    "timm SigLIP": "blocks.1.norm2",
    "HF ViT": "vit.layers.2.layernorm_before",
    "HF BERT": "bert.encoder.layer.1.output.LayerNorm",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_from_layer_is_token_space_for_captum(name):
    """Gradient x input there is LayerCDAM and Captum's own; integrated gradients are complete; infidelity runs."""
    case = in_float64(name)
    model, args = case.forward_func, case.additional_forward_args
    f = cv.from_layer(model, LAYERS[name])
    tokens = f.activation(case.inputs, *args)
    rest = {"target": case.target, "additional_forward_args": (case.inputs, *args)}
    product = InputXGradient(f).attribute(tokens.requires_grad_(), **rest).detach()
    assert_close(product, explain(cv.LayerCDAM(model, LAYERS[name], output="channels"), case), "float64")
    captums = LayerGradientXActivation(cv.logits_of(model), model.get_submodule(LAYERS[name]))
    assert_close(product, explain(captums, case).detach(), "float64")

    _, delta = IntegratedGradients(f).attribute(tokens, n_steps=100, return_convergence_delta=True, **rest)
    assert delta.abs().max() < 1e-2
    torch.manual_seed(0)
    found = infidelity(f, lambda x: (0.01 * torch.ones_like(x), x * 0.99), tokens, product, n_perturb_samples=2, **rest)
    assert found.shape == (3,) and torch.isfinite(found).all()


def test_infidelity_of_a_linear_read_out_is_zero():
    """After the last norm of a CLS-pooled model only the head follows, and gradients account for it exactly."""
    case = CASES["timm ViT"]()
    f = cv.from_layer(case.forward_func, "norm")
    tokens = f.activation(case.inputs)
    rest = {"target": case.target, "additional_forward_args": (case.inputs,)}
    weights = InputXGradient(f).attribute(tokens.requires_grad_(), **rest).detach()

    taken_and_left = lambda x: (x * 0.1, x * 0.9)  # noqa: E731
    found = infidelity(f, taken_and_left, tokens, weights / tokens.detach(), n_perturb_samples=2, **rest)
    assert found.max() < 1e-8


def test_tcav_with_cdam(tmp_path):
    """Unreduced CDAM in the place of Captum's layer gradients."""
    case = CASES["timm ViT"]()
    concepts = [
        Concept(i, f"concept {i}", DataLoader((torch.randn(10, 3, 32, 32) + i), batch_size=5)) for i in range(2)
    ]
    tcav = TCAV(
        case.forward_func, ["blocks.1.norm1"], save_path=str(tmp_path),
        layer_attr_method=cv.LayerCDAM(case.forward_func, output="channels"),
    )  # fmt: skip
    scores = tcav.interpret(case.inputs, [concepts], target=1)
    (counts,) = (layer["sign_count"] for layers in scores.values() for layer in layers.values())
    assert counts.shape == (2,) and float(counts.sum()) == pytest.approx(1)


def test_a_script_for_captums_layer_methods_runs_unchanged():
    """The keywords of LayerGradCam and LayerGradientXActivation, as their callers pass them."""
    case = CASES["timm ViT"]()
    cdam = cv.LayerCDAM(case.forward_func, case.forward_func.blocks[1].norm1)
    found = cdam.attribute(case.inputs, 1, None, attribute_to_layer_input=False, relu_attributions=True)
    assert (found >= 0).all()
    block = cv.LayerCDAM(case.forward_func, case.forward_func.blocks[1])
    at_input = block.attribute(case.inputs, target=1, attribute_to_layer_input=True)
    assert at_input.shape == found.shape and not torch.equal(at_input, found)
    with pytest.raises(cv.LayerError, match="cancels"):  # what passes a norm alone has no slope along itself
        cdam.attribute(case.inputs, target=1, attribute_to_layer_input=True)
    tunnel = NoiseTunnel(cdam)
    assert tunnel.attribute(case.inputs, target=1, nt_samples=2, stdevs=0.1).shape == found.shape


def test_reassigning_the_layer_takes_effect():
    case = CASES["timm ViT"]()
    cdam = cv.LayerCDAM(case.forward_func, "blocks.0")
    first = explain(cdam, case)
    cdam.layer = norm = case.forward_func.blocks[1].norm1
    assert_close(explain(cdam, case), explain(cv.LayerCDAM(case.forward_func, norm), case), "same computation")
    assert not torch.equal(explain(cdam, case), first)


def test_methods_of_captum_explain_hugging_face_through_logits_of():
    pair = Pair("LayerCDAM", "HF ViT")
    found = InputXGradient(cv.logits_of(pair.case.forward_func)).attribute(
        pair.case.inputs.clone().requires_grad_(), target=pair.case.target
    )
    assert found.shape == pair.case.inputs.shape
