"""Integrated CDAM: complete, equal to Captum's integrated gradients, whatever the portions."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerIntegratedGradients
from torch import Tensor

import captum_vit as cv
from captum_vit.attr.cdam_integrated import _quadrature
from tests.captum_vit.attr.test_cdam_routes import Loop, close, double, explain
from tests.contracts.pairs import in_float64
from tests.models import CASES
from tests.references import cdam
from tests.references.models import reference_images, reference_vit

SINGLE = 1e-7  # Captum weighs its steps in single precision
MAXIMUM = "timm ViT average and maximum"  # bends wherever another token becomes the largest
ROUTES = ("timm ViT", "timm ViT qk-norm", "HF BERT")


def delta(name: str, n_steps: int, method: str = "riemann_right") -> Tensor:
    case = in_float64(name)
    made = cv.LayerIntegratedCDAM(case.forward_func)
    _, found = explain(made, case, n_steps=n_steps, method=method, return_convergence_delta=True)
    assert found.shape == (3,)
    return found.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_delta_vanishes_with_more_steps(name):
    """At first order for the paper's rule, sooner for midpoints, at once for Gauss and Legendre if nothing bends."""
    right, middle = ([delta(name, n, f"riemann_{rule}") for n in (10, 40)] for rule in ("right", "middle"))
    assert right[1] < right[0] / 3
    assert middle[1] < right[1] / 3
    if name != MAXIMUM and not cv.spec_of(CASES[name]().forward_func).post_norm:  # tokens are a stream: norms bend at 0
        assert middle[1] < middle[0] / 6
        assert delta(name, 40, "gausslegendre") < middle[1] / 50


@pytest.mark.parametrize("name", ROUTES)
def test_the_delta_is_that_of_all_tokens(name):
    case = in_float64(name)
    loop = Loop(case)
    gain = (loop.put(loop.tokens)[0] - loop.put(torch.zeros_like(loop.tokens))[0]).detach()
    made = cv.LayerIntegratedCDAM(case.forward_func)
    tokens, found = explain(made, case, n_steps=7, return_convergence_delta=True)
    assert (found - (tokens.sum(1) - gain)).abs().max() < 1e-12
    made.output = "grid"
    assert torch.equal(made.attribute(case.inputs, None, case.target, case.additional_forward_args, n_steps=7,
                                      return_convergence_delta=True)[1], found)  # fmt: skip
    assert made.has_convergence_delta() and made.multiplies_by_inputs


@pytest.mark.slow
def test_equals_its_twin_from_a_baseline():
    model, images = reference_vit(), reference_images()
    black = torch.zeros_like(images[0])
    seen = {}
    with model.blocks[-1].norm1.register_forward_hook(lambda m, i, o: seen.update(T=o[0].detach())):
        model(black[None])
    found = cv.LayerIntegratedCDAM(model, output="tokens").attribute(images, baselines=0, target=[1, 4], n_steps=5)
    wanted = [cdam.integrated_cdam(model, images[i], [1, 4][i], 5, baseline=seen["T"]) for i in range(2)]
    assert (found - torch.stack(wanted)).abs().max() < 1e-9 * found.abs().max()


BASELINES = {
    "number": lambda x: 0.5,
    "one sample": lambda x: torch.full_like(x[:1], 0.5),
    "of the inputs' shape": lambda x: torch.full_like(x, 0.5),
    "tuple": lambda x: (torch.full_like(x, 0.5),),
}


@pytest.mark.parametrize("form", BASELINES)
@pytest.mark.parametrize("name", ["timm ViT", "timm ViT mean", "HF DINOv2"])
def test_equals_captums_integrated_gradients(name, form):
    case = in_float64(name)
    x, logits = case.inputs, cv.logits_of(case.forward_func)
    norm = cv.spec_of(logits).modules()[-1].get_submodule("norm1")
    theirs = LayerIntegratedGradients(logits, norm).attribute(
        x, torch.full_like(x, 0.5), target=case.target, n_steps=6, method="gausslegendre"
    )
    options = {"baselines": BASELINES[form](x), "target": case.target, "n_steps": 6, "method": "gausslegendre"}
    tokens, channels = cv.LayerIntegratedCDAM(logits, output="tokens"), cv.LayerIntegratedCDAM(logits, norm)
    channels.output = "channels"
    close(tokens.attribute(x, **options), theirs.sum(-1), SINGLE)
    close(channels.attribute(x, **options), theirs, SINGLE)


def test_words_as_a_baseline():
    case = double("HF BERT")
    made = cv.LayerIntegratedCDAM(case.forward_func)
    found, gap = explain(made, case, baselines=7, n_steps=60, method="gausslegendre", return_convergence_delta=True)
    assert found.any() and gap.abs().max() < 1e-3
    with pytest.warns(cv.ZeroMapWarning):
        assert not explain(made, case, baselines=case.inputs, n_steps=2).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("rows", [1, 5, 6, 100, None])
def test_portions_change_nothing(name, rows):
    case = in_float64(name)
    method = cv.LayerIntegratedCDAM(case.forward_func)
    alone = explain(method, case, n_steps=70, internal_batch_size=3)
    close(explain(method, case, n_steps=70, internal_batch_size=rows), alone)


@pytest.mark.parametrize("name", ROUTES)
def test_a_sample_is_explained_alike_in_company(name):
    case = in_float64(name)
    method = cv.LayerIntegratedCDAM(case.forward_func)
    together = explain(method, case, n_steps=5)
    for i in range(3):
        args = tuple(a[i : i + 1] for a in case.additional_forward_args)
        alone = case._replace(inputs=case.inputs[i : i + 1], additional_forward_args=args, target=case.target[i])
        close(together[i : i + 1], explain(method, alone, n_steps=5))


def test_a_linear_tail_makes_it_cdam():
    """Without keys, MLP and norms behind, the score is linear in the tokens: every step gives the same."""
    case = double("timm ViT")
    model, width = case.forward_func, 24
    with torch.no_grad():
        model.blocks[-1].attn.qkv.weight[: 2 * width] = 0
        model.blocks[-1].attn.qkv.bias[: 2 * width] = 0
        model.blocks[-1].mlp.fc2.weight.zero_()
    model.norm = torch.nn.Identity().eval()
    close(explain(cv.LayerIntegratedCDAM(model), case, n_steps=3), explain(cv.LayerCDAM(model), case))


@pytest.mark.parametrize("method", ["riemann_left", "riemann_middle", "riemann_right", "gausslegendre"])
def test_quadratures_integrate_straight_lines(method):
    points, weights = _quadrature(method, 8)
    assert abs(weights.sum() - 1) < 1e-12
    shift = {"riemann_left": -1 / 16, "riemann_right": 1 / 16}.get(method, 0)
    assert abs((points * weights).sum() - 0.5 - shift) < 1e-12


WRONG = {
    "quadrature": ({"method": "simpson"}, cv.OptionError),
    "no steps": ({"n_steps": 0}, cv.OptionError),
    "no rows": ({"internal_batch_size": 0}, cv.OptionError),
    "shape of the baseline": ({"baselines": torch.zeros(3, 3, 16, 16)}, cv.InputError),
    "kind of baseline": ({"baselines": "black"}, cv.InputError),
    "two baselines": ({"baselines": (0, 0)}, cv.InputError),
    "target": ({"target": 9}, cv.TargetError),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused(what):
    options, error = WRONG[what]
    case = CASES["timm ViT"]()
    with pytest.raises(error) as refused:
        cv.LayerIntegratedCDAM(case.forward_func).attribute(case.inputs, **{"target": 1, **options})
    assert refused.value.got


@pytest.mark.parametrize("layer", ["blocks.2", "patch_embed.proj", "nowhere", 7])
def test_layers_that_are_refused(layer):
    case = CASES["timm ViT"]()
    with pytest.raises(cv.LayerError):
        cv.LayerIntegratedCDAM(case.forward_func, layer).attribute(case.inputs, target=1)
