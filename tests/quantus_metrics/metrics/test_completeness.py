"""Completeness: sums by hand, methods whose maps sum to what they say, and maps whose pixels are counted too often."""

import numpy as np
import pytest
import timm
import torch
from captum.attr import IntegratedGradients

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.errors import InputError
from quantus_metrics.metrics.completeness import completeness_residual
from quantus_metrics.perturb import Fill


@pytest.fixture
def pooled():
    """A model that reads the mean of its patches, so that no token is left out of a map."""
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 8, "depth": 2, "embed_dim": 12, "num_heads": 2, "num_classes": 3}
    model = timm.create_model("vit_tiny_patch16_224", class_token=False, global_pool="avg", **sizes)
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16))
    return model.double().eval(), {"x_batch": x, "y_batch": np.array([0, 2])}


def test_by_hand(additive):
    model = additive(torch.tensor([[[4.0, 1.0], [2.0, 3.0]], [[1.0, 0.0], [0.0, 1.0]]]))
    maps = np.array([[[4.0, 1.0], [2.0, 3.0]], [[0.0, 1.0], [2.0, 0.0]]])
    call = {"x_batch": model.ones(2), "y_batch": np.array([0, 1]), "a_batch": maps}
    assert qm.Completeness()(model, **call) == [0, 0.5]  # 10 of 10, and 3 of 2
    assert model.images == 2
    assert qm.Completeness(reference=Fill(0.5))(model, **call) == [1, 2]  # (10 - 5) / 5, (3 - 1) / 1
    assert model.images == 2 + 4
    assert completeness_residual(torch.zeros(1), torch.tensor([-3.0])).item() == 1
    with pytest.raises(InputError, match="reference"):
        qm.Completeness(reference=Fill(1))(model, **call)


def test_full_grad_under_a_complete_rule_is_complete_and_decompx_misses_the_biases(pooled):
    model, data = pooled
    found = {}
    for name, method in (
        ("FullGrad", lambda m: cv.FullGrad(m, rule="frozen")),
        ("DecompX", lambda m: cv.DecompX(m)),
        ("LayerCDAM", cv.LayerCDAM),
    ):
        found[name] = qm.Completeness(patch_size=8)(model, **data, explain_func=qm.explain_func(method))
    assert max(found["FullGrad"]) < 1e-12
    assert min(found["DecompX"]) > 1e-3 and min(found["LayerCDAM"]) > 1e-3


def test_integrated_gradients_are_complete_against_their_reference(pooled):
    model, data = pooled

    def integrated(model, inputs, targets, **_):
        steps = {"n_steps": 200, "target": torch.tensor(targets)}
        return IntegratedGradients(model).attribute(torch.tensor(inputs), **steps).detach().numpy()

    metric = qm.Completeness(reference=Fill())
    assert max(metric(model, **data, explain_func=integrated)) < 1e-3
    assert min(qm.Completeness()(model, **data, explain_func=integrated)) > 1e-2  # another reference


def test_patches_that_are_repeated_over_their_pixels_count_once(pooled):
    model, data = pooled
    grid = cv.LayerCDAM(model).attribute(torch.tensor(data["x_batch"]), torch.tensor(data["y_batch"])).numpy()
    pixels = qm.explain_func(cv.LayerCDAM)(model, data["x_batch"], data["y_batch"])
    once = qm.Completeness()(model, **data, a_batch=grid)
    assert qm.Completeness(patch_size=8)(model, **data, a_batch=pixels) == pytest.approx(once)
    with pytest.raises(InputError, match="patch_size=8"):
        qm.Completeness()(model, **data, a_batch=pixels)
