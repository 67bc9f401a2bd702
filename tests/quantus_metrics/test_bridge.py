"""Through the door and back: maps for Quantus, and models that it accepts."""

import copy

import numpy as np
import pytest
import quantus
import torch
from captum.attr import FeatureAblation, InputXGradient, NoiseTunnel, Saliency
from torch import nn

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.errors import InputError, TraceError


class Constant(Saliency):
    """Gives the map it is told to give."""

    def __init__(self, model, relevance):
        super().__init__(model)
        self.relevance = relevance

    def attribute(self, inputs, target=None, factor=1):
        assert inputs.dtype == torch.float32
        assert target.dtype == torch.int64
        return self.relevance * factor


@pytest.fixture
def told(timm_vit, data):
    """The array that comes out for a tensor that the method gives."""
    return lambda relevance, **kw: qm.explain_func(lambda m: Constant(m, relevance))(
        timm_vit, data["x_batch"], data["y_batch"], **kw
    )


def test_channels_are_summed_and_signs_kept(timm_vit, data):
    x = torch.tensor(data["x_batch"], requires_grad=True)
    expected = InputXGradient(timm_vit).attribute(x, target=torch.tensor(data["y_batch"])).sum(1, keepdim=True)
    got = qm.explain_func(InputXGradient)(model=timm_vit, inputs=data["x_batch"], targets=data["y_batch"])
    assert type(got) is np.ndarray
    np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert (got < 0).any()


@pytest.mark.parametrize("form", [lambda g: g, lambda g: g.unsqueeze(1), lambda g: (g.unsqueeze(1),)])
def test_grids_are_repeated_over_their_pixels(told, form):
    grid = torch.randn(6, 4, 4)
    expected = grid.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    assert np.array_equal(told(form(grid)), expected.numpy())


def test_half_precision_and_gradients_come_out_as_float32(told):
    got = told(torch.randn(6, 4, 4, dtype=torch.bfloat16, requires_grad=True))
    assert got.dtype == np.float32


def test_keywords_reach_attribute_but_for_those_that_quantus_adds(told):
    grid = torch.randn(6, 4, 4)
    assert np.array_equal(told(grid, method="CDAM", device="cpu", factor=2), told(2 * grid))


@pytest.mark.parametrize("shape", [(6, 17), (5, 4, 4), (1, 6, 4, 4)])
def test_what_is_no_picture_of_the_inputs_raises(told, shape):
    with pytest.raises(InputError, match='output="grid"'):
        told(torch.randn(shape))


def test_an_instance_explains_its_own_model_only(timm_vit, data):
    x, y = data["x_batch"], data["y_batch"]
    own = qm.explain_func(NoiseTunnel(Saliency(timm_vit)))
    assert own(timm_vit, x, y, nt_samples=1, stdevs=0.0).shape == (6, 1, 32, 32)
    assert own(qm.wrap(timm_vit), x, y, nt_samples=1).shape == (6, 1, 32, 32)
    with pytest.raises(InputError, match="factory"):
        own(copy.deepcopy(timm_vit), x, y)
    with pytest.raises(InputError, match="factory"):
        qm.explain_func(Saliency(lambda inputs: timm_vit(inputs)))(timm_vit, x, y)


def test_an_instance_may_explain_a_module_around_the_model(timm_vit, data):
    first_two = nn.Sequential(timm_vit, nn.Linear(5, 2)).eval()
    explain = qm.explain_func(Saliency(first_two))
    assert explain(timm_vit, data["x_batch"], data["y_batch"] % 2).shape == (6, 1, 32, 32)


def test_randomised_copies_get_their_own_map(timm_vit, data):
    scores = quantus.MPRT(layer_order="independent", disable_warnings=True)(
        model=timm_vit,
        x_batch=data["x_batch"][:2],
        y_batch=data["y_batch"][:2],
        explain_func=qm.explain_func(Saliency),
    )
    assert len(scores) > 3


def test_inputs_that_are_no_images_keep_their_maps(data):
    model = nn.Linear(7, 3).eval()
    x = np.random.default_rng(0).standard_normal((4, 7), dtype=np.float32)
    got = qm.explain_func(FeatureAblation)(model, x, np.zeros(4, dtype=int))
    np.testing.assert_allclose(got, x * model.weight[0].detach().numpy(), rtol=1e-4, atol=1e-5)


def test_wrap_gives_the_logits(hf_vit, timm_vit, data):
    x = torch.tensor(data["x_batch"])
    assert torch.equal(qm.wrap(hf_vit)(x), hf_vit(x).logits)
    assert torch.equal(qm.wrap(timm_vit)(x), timm_vit(x))


def test_wrap_once_around_the_model_as_it_is(hf_vit):
    wrapped = qm.wrap(hf_vit)
    assert qm.wrap(wrapped) is wrapped
    assert wrapped.model is hf_vit
    assert not wrapped.training
    assert qm.wrap(hf_vit.train()).training


def test_wrap_bridges_half_precision(hf_vit, data):
    x = torch.tensor(data["x_batch"])
    full = hf_vit(x).logits
    got = qm.wrap(hf_vit.bfloat16())(x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, full, atol=0.1, rtol=0.1)
    assert qm.wrap(hf_vit.double())(x).dtype == torch.float64


def test_our_methods_find_the_model_inside(hf_vit, data):
    x, y = torch.tensor(data["x_batch"]), torch.tensor(data["y_batch"])
    wrapped = qm.wrap(hf_vit)
    assert cv.spec_of(wrapped).tower is cv.spec_of(hf_vit).tower
    for method in (cv.LayerCDAM, cv.PredictionMap):  # a gradient, and probabilities of class logits
        torch.testing.assert_close(method(wrapped).attribute(x, y), method(hf_vit).attribute(x, y))


def test_a_wrapped_target_is_still_no_classifier(hf_vit, data):
    concept, x = cv.ConceptSimilarity(hf_vit, torch.randn(2, 24)), torch.tensor(data["x_batch"])
    assert torch.equal(qm.wrap(concept)(x), concept(x))
    maps = [cv.PredictionMap(f).attribute(x, target=1) for f in (concept, qm.wrap(concept))]
    torch.testing.assert_close(*maps)


@pytest.mark.slow
@pytest.mark.parametrize("name", cv.METHODS)
def test_each_of_our_methods_goes_through_the_door(hf_vit_of_three_blocks, data, name):
    model = hf_vit_of_three_blocks
    maps = qm.explain_func(cv.METHODS[name])(qm.wrap(model), data["x_batch"], data["y_batch"], method=name)
    assert maps.shape == (6, 1, 32, 32)
    assert len(np.unique(maps[0])) <= 16  # patches, repeated over their pixels
    assert np.isfinite(qm.Fidelity(patch_size=8)(model, **data, a_batch=maps)).all()


def test_wrap_says_what_it_cannot_read():
    class Words(nn.Module):
        def forward(self, inputs):
            return "a cat"

    with pytest.raises(TraceError, match="logits"):
        qm.wrap(Words())(torch.zeros(1, 3, 2))


@pytest.mark.slow
@pytest.mark.parametrize("method", [InputXGradient, cv.LayerCDAM])
@pytest.mark.parametrize("which", ["timm_vit", "hf_vit"])
def test_beside_quantus_own_metrics(request, data, which, method):
    model = qm.wrap(request.getfixturevalue(which))
    metrics = {
        "fidelity": qm.Fidelity(patch_size=8),
        "sparseness": quantus.Sparseness(abs=True, disable_warnings=True),
        "regions": quantus.RegionPerturbation(patch_size=8, regions_evaluation=3, disable_warnings=True),
        "stability": quantus.MaxSensitivity(nr_samples=2, disable_warnings=True),
    }
    explain, call = qm.explain_func(method), {**data, "explain_func_kwargs": {}}
    scores = quantus.evaluate(metrics, {"m": explain}, model, **call)["m"]
    assert all(len(found) == 6 for found in scores.values())

    made = {"m": explain(model, data["x_batch"], data["y_batch"])}
    again = quantus.evaluate({"fidelity": metrics["fidelity"]}, made, model, **call)["m"]
    assert again["fidelity"] == pytest.approx(scores["fidelity"], abs=1e-4)

    softly = quantus.evaluate(
        metrics, {"m": explain}, model, **call, call_kwargs={"p": {"softmax": True, "batch_size": 4}}
    )["m"]
    assert np.abs(softly["fidelity"]).max() <= 100


@pytest.mark.parametrize("method", [InputXGradient, cv.LayerCDAM])
def test_half_precision_from_end_to_end(hf_vit, data, method):
    call = {**data, "explain_func": qm.explain_func(method)}
    full = qm.Fidelity(patch_size=8)(qm.wrap(hf_vit), **call)
    half = qm.Fidelity(patch_size=8)(qm.wrap(hf_vit.bfloat16()), **call)
    assert np.corrcoef(full, half)[0, 1] > 0.8


@pytest.mark.gpu
def test_the_work_is_done_where_the_model_is(timm_vit, data):
    call = {**data, "explain_func": qm.explain_func(InputXGradient)}
    here = qm.Fidelity(patch_size=8)(timm_vit, **call)
    there = qm.Fidelity(patch_size=8)(timm_vit.cuda(), **call, device="cuda")
    assert there == pytest.approx(here, abs=0.5)  # scores are of tens; TF32 may break near ties


def test_our_metrics_take_a_hugging_face_model_unwrapped(hf_vit, data):
    maps = data["x_batch"].sum(1)
    scores = qm.Fidelity(patch_size=8)(hf_vit, **data, a_batch=maps)
    assert scores == qm.Fidelity(patch_size=8)(qm.wrap(hf_vit), **data, a_batch=maps)
