"""Class discrimination: exactly nothing for maps that know no class, and the twin's number for others."""

import numpy as np
import pytest
import quantus
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from quantus.helpers.enums import ScoreDirection
from scipy.integrate import trapezoid

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.errors import InputError, OptionError, TargetError
from quantus_metrics.metrics.class_discrimination import runner_up
from quantus_metrics.perturb import Fill
from quantus_metrics.perturb.box import draw_boxes
from tests.quantus_metrics import twins
from tests.quantus_metrics.conftest import Additive

STEPS = (0, 0.2, 0.5, 1)
INNER = [
    qm.Fidelity(remover=Fill(), fractions=STEPS),
    qm.BoxSensitivity(remover=Fill(), sizes=(1, 2, 3), n_boxes=12),
]
WRONG = np.array([3, 4, 0, 1, 2, 1])


@pytest.fixture
def explained(timm_vit, data):
    """A model in float64, images, right classes, and maps of right and wrong classes."""
    rng = np.random.default_rng(0)
    x = data["x_batch"].astype(np.float64)
    return timm_vit.double(), x, data["y_batch"], rng.standard_normal((6, 4, 4)), rng.standard_normal((6, 4, 4))


@pytest.mark.slow
@pytest.mark.parametrize("inner", INNER, ids=lambda inner: inner.name)
def test_a_slow_twin(explained, inner):
    model, x, y, right, wrong = explained

    @torch.no_grad()
    def ask(image):
        return model(torch.tensor(image)[None])[0].numpy()

    boxes = draw_boxes((32, 32), (8, 16, 24), 12).numpy()

    def slow(i, relevance):
        if inner.name == "Fidelity":
            return twins.fidelity(ask, x[i], y[i], relevance, STEPS, 0.0)
        return trapezoid(twins.box_curve(ask, x[i], y[i], relevance, boxes, 0.0))

    scores = qm.ClassDiscrimination(inner)(model, x[:3], y[:3], right[:3], custom_batch=wrong[:3], batch_size=2)
    assert scores == pytest.approx([slow(i, right[i]) - slow(i, wrong[i]) for i in range(3)], abs=1e-6)


@pytest.mark.parametrize("inner", INNER, ids=lambda inner: inner.name)
@pytest.mark.parametrize("method", [cv.RawAttention, cv.AttentionRollout])
def test_a_method_that_knows_no_class_has_exactly_nothing(timm_vit, data, inner, method):
    for wrong in ({"custom_batch": WRONG}, {}):
        scores = qm.ClassDiscrimination(inner)(timm_vit, **data, explain_func=qm.explain_func(method), **wrong)
        assert scores == [0.0] * 6


def test_a_method_that_knows_its_class_has_something(timm_vit, data):
    scores = qm.ClassDiscrimination(INNER[0])(timm_vit, **data, explain_func=qm.explain_func(cv.LayerCDAM))
    assert all(scores)


@pytest.mark.parametrize("inner", INNER, ids=lambda inner: inner.name)
@given(st.integers(0, 999))
@settings(max_examples=10, deadline=None)
def test_oracle_beats_agnostic_beats_swapped(inner, seed):
    weights = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(seed))
    model, maps = Additive(weights), weights[[0, 0, 1]].numpy()
    other = weights[[1, 0, 0]].numpy()
    scores = qm.ClassDiscrimination(inner)(model, model.ones(3), np.zeros(3, dtype=int), maps, custom_batch=other)
    assert scores[0] > scores[1] == 0 > scores[2]
    assert scores[2] == -scores[0]


def weights_as_maps(asked):
    def explain(model, inputs, targets, **kwargs):
        asked.append(targets.tolist())
        return model.weights.detach().numpy()[targets]

    return explain


def test_where_the_wrong_class_comes_from(additive):
    weights = torch.randn(3, 4, 4)
    weights += torch.tensor([2.0, 0.0, 1.0])[:, None, None]  # on white images: 0, then 2, then 1
    model, y, asked = additive(weights), np.array([0, 1, 2]), []
    arrays = {"x_batch": model.ones(3), "y_batch": y, "explain_func": weights_as_maps(asked)}

    def classes(metric, **kwargs):
        asked.clear()
        metric(model, **arrays, **kwargs)
        return asked

    inner = INNER[0]
    assert classes(qm.ClassDiscrimination(inner)) == [[0, 1, 2], [2, 0, 0]]
    assert classes(qm.ClassDiscrimination(inner), custom_batch=[1, 2, 0]) == [[0, 1, 2], [1, 2, 0]]
    assert classes(qm.ClassDiscrimination(inner, wrong=1), custom_batch=[2, 2, 0]) == [[0, 1, 2], [2, 2, 0]]
    assert classes(qm.ClassDiscrimination(inner), custom_batch=[1, 2, 0], batch_size=2) == [[0, 1], [1, 2], [2], [0]]
    assert classes(qm.ClassDiscrimination(inner), a_batch=weights.numpy()) == [[2, 0, 0]]
    arrays["y_batch"] = np.array([0, 2, 2])
    assert classes(qm.ClassDiscrimination(inner, wrong=1)) == [[0, 2, 2], [1, 1, 1]]


def test_runner_up_by_hand():
    outputs = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [-3.0, -1.0, -2.0]])
    assert runner_up(outputs, torch.tensor([0, 1, 2])).tolist() == [2, 0, 1]
    with pytest.raises(InputError, match="two classes"):
        runner_up(torch.ones(2, 1), torch.tensor([0, 0]))


@pytest.mark.parametrize(("inner", "images"), [(INNER[0], 2 * 6), (INNER[1], None)], ids=["fidelity", "box"])
def test_forward_passes(additive, inner, images):
    model = additive(torch.randn(2, 4, 4))
    maps = np.random.rand(2, 3, 4, 4)
    qm.ClassDiscrimination(inner)(model, model.ones(3), np.zeros(3, dtype=int), maps[0], custom_batch=maps[1])
    alone = additive(torch.randn(2, 4, 4))
    inner(alone, alone.ones(3), np.zeros(3, dtype=int), maps[0])
    assert model.images == (3 * images if images else alone.images)  # boxes serve both maps


def test_the_other_metric_prepares_both_maps(explained):
    model, x, y, right, wrong = explained
    inner = qm.Fidelity(remover=Fill(), fractions=STEPS, abs=True)
    scores = qm.ClassDiscrimination(inner)(model, x, y, right, custom_batch=wrong)
    apart = np.subtract(inner(model, x, y, right), inner(model, x, y, wrong))
    assert scores == pytest.approx(apart.tolist())
    assert scores != qm.ClassDiscrimination(INNER[0])(model, x, y, right, custom_batch=wrong)


def test_it_follows_the_other_metric():
    metric = qm.ClassDiscrimination(qm.Fidelity(score="mif"))
    assert metric.score_direction is ScoreDirection.LOWER
    assert qm.ClassDiscrimination(qm.BoxSensitivity(score="mean")).score_range == (-2, 2)
    assert qm.ClassDiscrimination(qm.AOPC()).softmax


def test_quantus_evaluates_it_beside_its_own(timm_vit, data):
    explain = qm.explain_func(cv.LayerCDAM)
    metrics = {"Delta": qm.ClassDiscrimination(INNER[0]), "Sparseness": quantus.Sparseness(disable_warnings=True)}
    arrays = {"x_batch": data["x_batch"], "y_batch": data["y_batch"]}
    found = quantus.evaluate(metrics, {"CDAM": explain}, timm_vit, **arrays, explain_func_kwargs={}, agg_func=list)
    again = qm.ClassDiscrimination(INNER[0])(timm_vit, **arrays, explain_func=explain)
    assert found["CDAM"]["Delta"] == pytest.approx(again, abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "change", "error", "complaint"),
    [
        (0, {}, InputError, r"not the right one(.|\n)*\[0, 5\]"),
        ("runner_up", {"custom_batch": np.array([1, 1, 1, 1, 1, 1])}, InputError, "not the right one"),
        ("runner_up", {"custom_batch": WRONG + 3}, TargetError, "Classes from 0 to 4 in custom_batch"),
        ("runner_up", {"custom_batch": -WRONG}, TargetError, "custom_batch"),
        (5, {}, TargetError, "Classes from 0 to 4"),
        ("runner_up", {"custom_batch": WRONG[:4]}, InputError, "custom_batch per sample"),
        ("runner_up", {"custom_batch": np.ones((6, 4, 4))}, InputError, "varies"),
        ("runner_up", {"custom_batch": np.full((6, 4, 4), np.nan)}, InputError, "Finite"),
        ("runner_up", {"custom_batch": np.random.rand(6, 16)}, InputError, "Maps"),
        ("runner_up", {"custom_batch": np.random.rand(6, 5, 5)}, InputError, "h divides 32"),
        ("runner_up", {"custom_batch": WRONG, "explain_func": None}, InputError, "explain_func"),
        ("runner_up", {"explain_func": None}, InputError, "explain_func"),
        ("runner_up", {"a_batch": np.ones((6, 1, 1))}, InputError, "varies"),
        ("runner_up", {"y_batch": WRONG + 3}, TargetError, "y_batch"),
    ],
)
@pytest.mark.parametrize("inner", INNER, ids=lambda inner: inner.name)
def test_bad_input_is_refused_before_any_pass(timm_vit, data, inner, wrong, change, error, complaint):
    passes = []
    cv.spec_of(timm_vit, torch.as_tensor(data["x_batch"]))  # the first pass finds the blocks
    timm_vit.blocks[0].register_forward_hook(lambda *_: passes.append(1))  # an embedding is no pass
    arrays = {**data, "a_batch": np.random.rand(6, 4, 4), "explain_func": qm.explain_func(cv.LayerCDAM), **change}
    with pytest.raises(error, match=complaint):
        qm.ClassDiscrimination(inner, wrong=wrong)(timm_vit, **arrays)
    assert passes == []


@pytest.mark.parametrize("inner", INNER, ids=lambda inner: inner.name)
@pytest.mark.parametrize("size", [4, 32], ids=["patches", "pixels"])
def test_maps_of_both_classes_are_compared_at_one_size(timm_vit, data, inner, size):
    """Whatever the two sizes are, parts leave as the right class's map has them."""
    metric, draw = qm.ClassDiscrimination(inner), np.random.default_rng(2)
    right, wrong = draw.standard_normal((2, 6, 1, 4, 4), dtype=np.float32)
    large = {4: lambda maps: maps, 32: lambda maps: maps.repeat(8, 2).repeat(8, 3)}
    other = {4: 32, 32: 4}[size]
    call = (timm_vit, data["x_batch"], data["y_batch"], large[size](right))
    alike = metric(*call, custom_batch=large[size](wrong))
    assert metric(*call, custom_batch=large[other](wrong)) == pytest.approx(alike, abs=1e-6)
    made = metric(*call, custom_batch=WRONG, explain_func=lambda **_: large[other](wrong))
    assert made == pytest.approx(alike, abs=1e-6)


def test_maps_of_sizes_that_do_not_fit_are_refused(timm_vit, data):
    call = (timm_vit, data["x_batch"], data["y_batch"], np.random.rand(6, 4, 4))
    with pytest.raises(InputError, match="6 x 6 and of 4 x 4"):
        qm.ClassDiscrimination(qm.Compactness())(*call, custom_batch=np.random.rand(6, 6, 6))


def test_bad_options():
    with pytest.raises(OptionError, match="custom_batch"):
        qm.ClassDiscrimination(wrong=[1, 2, 3])
    with pytest.raises(OptionError, match="predicted"):
        qm.ClassDiscrimination(qm.AOPC(explained="predicted"))
    with pytest.raises(OptionError, match="abs here"):
        qm.ClassDiscrimination(abs=True)


def test_plot(explained):
    model, x, y, right, wrong = explained
    metric = qm.ClassDiscrimination(INNER[0])
    with pytest.raises(InputError, match="call the metric first"):
        metric.plot(show=False)
    scores = metric(model, x, y, right, custom_batch=wrong)
    metric.plot(show=False)
    rises = [line.get_ydata()[1] - line.get_ydata()[0] for line in plt.gca().lines[:6]]
    assert rises == pytest.approx(scores)
    plt.close("all")
