"""The backward rule as an axis of its own: what each promises, and where they agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.trace.modes.rules import under
from tests.models import CASES
from tests.references.models import reference_images, reference_vit

TARGETS = [1, 4]
WITH_RULE = [cv.LayerCDAM, cv.LayerSmoothCDAM, cv.CAT, cv.FullGrad, cv.FullGradPlus, cv.TokenGradCAM]


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def explained(make, name: str, **options) -> Tensor:
    case = CASES[name]()
    method = make(case.forward_func, output="tokens", **options)
    return method.attribute(case.inputs, case.target, case.additional_forward_args or None)


@pytest.mark.parametrize("method", WITH_RULE)
def test_an_unknown_rule_is_refused(method):
    with pytest.raises(cv.OptionError, match="rule"):
        method(reference_vit(), rule="lrp")


@pytest.mark.parametrize("start", [0, 2])
def test_cat_under_the_frozen_rule_is_plus_over_decompx(start: int):
    model, images = reference_vit(layer_scale=True), reference_images()
    decomposed = cv.SkipPLUS(cv.DecompX(model), start_layer=start).attribute(images, target=TARGETS)
    close(cv.CAT(model, start, rule="frozen").attribute(images, target=TARGETS), decomposed)
    close(cv.CAT(model, start, rule="libra").attribute(images, target=TARGETS), decomposed)


@pytest.mark.parametrize("rule", ["frozen", "libra"])
def test_cdam_at_a_block_is_decompx_from_the_next_one(rule: str):
    model, images = reference_vit(layer_scale=True), reference_images()
    decomposed = cv.DecompX(model, 2).attribute(images, target=TARGETS)
    close(cv.LayerCDAM(model, "blocks.1", rule=rule).attribute(images, target=TARGETS), decomposed)
    close(cv.LayerCDAM(model, "blocks.1", rule=rule).all_classes(images)[[0, 1], TARGETS], decomposed[:, 0])
    smooth = cv.LayerSmoothCDAM(model, "blocks.1", rule=rule)
    close(smooth.attribute(images, target=TARGETS, stdev=0.0, n_samples=1), decomposed)


@pytest.mark.parametrize("rule", ["frozen", "libra"])
def test_under_a_rule_cdam_comes_through_values_alone(rule: str):
    """Also at the default reading point, whose block runs in full there, not for the CLS row alone."""
    model, images = reference_vit(), reference_images()
    method = cv.LayerCDAM(model, rule=rule)
    values, keys = method.value_and_key_terms(images, target=TARGETS)
    close(values, method.attribute(images, target=TARGETS))
    close(keys, torch.zeros_like(keys))
    assert not torch.allclose(values, cv.LayerCDAM(model).attribute(images, target=TARGETS), rtol=1e-2)


def test_plus_takes_the_rule_of_what_it_wraps():
    model, images = reference_vit(), reference_images()
    for rule in ("grad", "frozen", "libra"):
        method = cv.CAT(model, rule=rule)
        close(cv.PLUS(method).attribute(images, target=TARGETS), method.attribute(images, target=TARGETS))


@pytest.mark.parametrize("name", ["timm ViT", "timm CLIP ViT", "HF CLIP", "HF BERT", "torchvision ViT"])
def test_without_gated_units_libra_is_frozen(name: str):
    frozen, libra, grad = (explained(cv.CAT, name, rule=rule) for rule in ("frozen", "libra", "grad"))
    assert torch.equal(frozen, libra)
    assert not torch.allclose(frozen, grad, rtol=0.1)


@pytest.mark.parametrize("name", ["timm EVA-02", "HF ModernBERT"])
def test_gated_units_tell_libra_from_frozen(name: str):
    frozen, libra = (explained(cv.CAT, name, rule=rule) for rule in ("frozen", "libra"))
    assert not torch.allclose(frozen, libra, rtol=1e-2)


@pytest.mark.parametrize(("rule", "wanted"), [("frozen", (0.0, 1.0)), ("libra", (0.5, 0.5))])
def test_what_each_stream_of_a_gated_unit_contributes(rule: str, wanted: tuple[float, float]):
    """Gradient x value of a and b in silu(3a) b, by the value of the product: together all of it."""
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(5.0, requires_grad=True)
    with under(rule):
        y = F.silu(3 * a) * b
    grads = torch.autograd.grad(y, [a, b], materialize_grads=True)
    assert y == F.silu(3 * a) * b
    assert [(g * x / y).item() for g, x in zip(grads, (a, b), strict=True)] == pytest.approx(wanted)


@pytest.mark.parametrize("rule", ["frozen", "libra"])
def test_a_learned_scale_behind_an_activation_is_no_stream(rule: str):
    """Whether parameters ask for a gradient must not matter."""
    x = torch.linspace(-2, 3, 6, dtype=torch.float64, requires_grad=True)
    scale = nn.Parameter(x.detach().flip(0))
    grads = []
    for trainable in (True, False):
        scale.requires_grad_(trainable)
        with under(rule):
            y = F.gelu(x) * scale
        grads += torch.autograd.grad(y.sum(), x)
    close((grads[0] * x).detach(), y.detach())
    assert torch.equal(*grads)


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "no graph"])
def test_attention_may_be_called_by_keywords_under_a_rule(graph: bool):
    """With a graph it is written out, without one it stays fused."""
    q, k, v = (torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=graph) for _ in range(3))
    with under("frozen"):
        found = F.scaled_dot_product_attention(query=q, key=k, value=v)
    close(found, F.scaled_dot_product_attention(q, k, v))
    assert found.requires_grad == graph
