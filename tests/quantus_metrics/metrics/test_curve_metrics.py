"""AOPC, LogOdds and PerturbationAccuracy: against their twins, by hand, and in what they promise of every map."""

from functools import partial

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.errors import InputError, OptionError, TargetError
from quantus_metrics.metrics.aopc import aopc
from quantus_metrics.metrics.log_odds import log_odds
from quantus_metrics.metrics.perturbation_accuracy import TENTHS, accuracy_area
from quantus_metrics.perturb import FRACTIONS, Curve, DropTokens, Fill
from tests.quantus_metrics import twins

BLACK = -1.0  # (0 - 0.5) / 0.5
ALL = [
    qm.AOPC,
    qm.LogOdds,
    *(partial(qm.PerturbationAccuracy, score=score) for score in ("negative", "positive", "difference")),
]


@pytest.fixture
def exact(timm_vit, data):
    """A model in float64 that tells its normalisation and prefers no class; images, classes and maps of its patches."""
    timm_vit.pretrained_cfg = {**timm_vit.pretrained_cfg, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    x = data["x_batch"].astype(np.float64)
    maps = np.random.default_rng(1).standard_normal((6, 4, 4))
    with torch.no_grad():
        timm_vit.double().head.bias -= timm_vit(torch.tensor(x)).mean(0)
    return timm_vit, x, data["y_batch"], maps


def one_by_one(model):
    @torch.no_grad()
    def ask(image):
        return model(torch.tensor(image)[None])[0].numpy()

    return ask


@pytest.mark.parametrize("fractions", [FRACTIONS, (0.1, 0.5, 0.9)])
@pytest.mark.parametrize(("metric", "twin"), [(qm.AOPC, twins.aopc), (qm.LogOdds, twins.log_odds)])
def test_probability_metrics_are_their_twins(exact, metric, twin, fractions):
    model, x, y, maps = exact
    slow = [twin(one_by_one(model), x[i], y[i], maps[i], fractions, BLACK) for i in range(6)]
    assert metric(fractions=fractions)(model, x, y, maps, batch_size=4) == pytest.approx(slow, abs=1e-6)


@pytest.mark.parametrize("include_zero", [True, False])
@pytest.mark.parametrize(("score", "least_first"), [("negative", True), ("positive", False)])
def test_accuracy_is_its_twin(exact, score, least_first, include_zero):
    model, x, _, maps = exact
    ask = one_by_one(model)
    y = np.array([int(ask(image).argmax()) for image in x])
    y[-1] = (y[-1] + 1) % 5  # one that is wrong from the start
    steps = [k / 10 for k in range(0 if include_zero else 1, 10)]
    slow = [twins.perturbation_auc(ask, x[i], y[i], maps[i], steps, BLACK, least_first) for i in range(6)]
    metric = qm.PerturbationAccuracy(score=score, include_zero=include_zero)
    assert metric(model, x, y, maps) == pytest.approx(slow, abs=1e-6)
    assert len(set(slow)) > 2  # the images do differ
    assert all(metric.score_range[0] <= one <= metric.score_range[1] for one in slow)


def test_functions_by_hand():
    x = torch.tensor([0.0, 0.5, 1.0])
    curve = Curve(x, torch.tensor([[0.8, 0.4, 0.2]]))
    assert aopc(torch.tensor([0.8]), curve).tolist() == pytest.approx([(0 + 0.4 + 0.6) / 3])
    assert log_odds(torch.tensor([0.8]), curve).tolist() == pytest.approx([np.log([1, 1 / 2, 1 / 4]).mean()])
    assert accuracy_area(Curve(x, torch.tensor([[1.0, 1.0, 0.0]]))).tolist() == [75]


def test_a_probability_that_vanishes_does_not_make_the_mean_infinite():
    found = log_odds(torch.tensor([1.0]), Curve(torch.tensor([0.0, 1.0]), torch.tensor([[1.0, 0.0]])))
    assert -45 < found.item() < -40  # half of the logarithm of float32's smallest normal number


def test_the_difference_is_the_difference(exact):
    model, x, y, maps = exact
    found = {score: qm.PerturbationAccuracy(score=score)(model, x, y, maps) for score in ("negative", "positive")}
    difference = qm.PerturbationAccuracy(score="difference")(model, x, y, maps)
    assert difference == pytest.approx(np.subtract(found["negative"], found["positive"]).tolist())


@pytest.mark.parametrize(
    ("make", "images"),
    [
        (qm.AOPC, 21),
        (partial(qm.AOPC, fractions=TENTHS), 10),
        (qm.LogOdds, 21),
        (qm.PerturbationAccuracy, 10),
        (partial(qm.PerturbationAccuracy, include_zero=False), 9),
        (partial(qm.PerturbationAccuracy, score="difference"), 19),
    ],
)
def test_forward_passes(additive, make, images):
    model = additive(torch.randn(1, 6, 6))
    make(remover=Fill())(model, model.ones(3), np.zeros(3, dtype=int), np.random.rand(3, 6, 6))
    assert model.images == 3 * images


def test_the_predicted_class_is_explained_and_the_true_one_is_marked(additive):
    weights = torch.randn(2, 4, 4)
    model, asked = additive(torch.stack([weights[0], weights[0] + weights[1].abs()])), []

    def explain(model, inputs, targets, **kwargs):
        asked.append(targets.tolist())
        return model.weights.detach().numpy()[targets]

    x, labels = model.ones(3), np.zeros(3, dtype=int)  # the model answers 1, always
    metric = qm.PerturbationAccuracy(explained="predicted", remover=Fill(), return_curves=True)
    metric(model, x, labels, a_batch=np.full((3, 4, 4), 7.0) + np.eye(4), explain_func=explain, batch_size=2)
    assert asked == [[1, 1], [1]]
    assert metric.curves["lif"].scores[:, 0].tolist() == [0, 0, 0]
    assert model.images == 3 * (10 + 1)

    asked.clear()
    qm.PerturbationAccuracy(remover=Fill())(model, x, labels, explain_func=explain)
    assert asked == [[0, 0, 0]]
    passes = model.passes
    with pytest.raises(InputError, match="explain_func"):
        metric(model, x, labels, a_batch=weights[:1].repeat(3, 1, 1).numpy())
    assert model.passes == passes


@pytest.mark.parametrize("make", [qm.AOPC, qm.LogOdds])
def test_the_predicted_class_is_explained_and_read(additive, make):
    """As if it were given as `y_batch`; the labels, and maps of them, are not read."""
    weights = torch.randn(2, 4, 4)
    model = additive(torch.stack([weights[0], weights[0] + weights[1].abs()]))  # answers 1, always

    def explain(model, inputs, targets, **kwargs):
        return model.weights.detach().numpy()[targets]

    x, labels = model.ones(3), np.zeros(3, dtype=int)
    found = make(explained="predicted", remover=Fill())(model, x, labels, np.random.rand(3, 4, 4), explain_func=explain)
    assert model.images == 3 * (17 + 1)  # of 16 patches there are 17 steps
    assert found == make(remover=Fill())(model, x, labels + 1, explain_func=explain)
    assert found != make(remover=Fill())(model, x, labels, explain_func=explain)


def test_enlarged_maps_rank_pixels(exact):
    """As if they had been enlarged before; maps of pixels stay as they are."""
    model, x, y, maps = exact
    large = torch.nn.functional.interpolate(torch.tensor(maps[:, None]), scale_factor=8, mode="bilinear").numpy()
    metric = qm.AOPC(enlarge="bilinear")
    assert metric(model, x, y, maps) == metric(model, x, y, large) == qm.AOPC()(model, x, y, large)
    assert metric(model, x, y, maps) != qm.AOPC()(model, x, y, maps)
    for options in ({"patch_size": 8}, {"remover": DropTokens()}):
        with pytest.raises(OptionError, match="enlarged"):
            qm.AOPC(enlarge="bilinear", **options)


def test_black_comes_from_the_model_or_the_caller(timm_vit, hf_vit, additive, data):
    maps = np.random.rand(6, 4, 4)
    timm_vit.pretrained_cfg = {**timm_vit.pretrained_cfg, "mean": (0.2, 0.3, 0.4), "std": (0.5,) * 3}
    given_by_hand = qm.AOPC(remover=Fill(0, mean=(0.2, 0.3, 0.4), std=0.5))(timm_vit, **data, a_batch=maps)
    assert qm.AOPC()(timm_vit, **data, a_batch=maps) == given_by_hand
    assert qm.AOPC()(hf_vit, **data, a_batch=maps) == qm.AOPC(remover=Fill(-1))(hf_vit, **data, a_batch=maps)
    model = additive(torch.randn(1, 4, 4))
    with pytest.raises(OptionError, match="Black"):
        qm.AOPC()(model, model.ones(1), np.zeros(1, dtype=int), np.random.rand(1, 4, 4))
    assert model.passes == 0


def test_raw_scores_are_read_as_they_are_and_have_no_logarithm(additive):
    model = additive(torch.tensor([[[4.0, 1.0], [2.0, 3.0]]]))
    arrays = (model.ones(1), np.zeros(1, dtype=int), model.weights.detach().numpy())
    steps = {"remover": Fill(), "fractions": (0, 0.25, 0.5, 0.75, 1)}
    assert qm.AOPC(**steps)(model, *arrays, softmax=False) == [(0 + 4 + 7 + 9 + 10) / 5]
    with pytest.raises(InputError, match="softmax=True"):
        qm.LogOdds(**steps)(model, *arrays, softmax=False)
    model.raw_scores = True  # as the similarities of captum_vit's target modules say
    assert qm.AOPC(**steps)(model, *arrays) == [6]


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"a_batch": np.full((6, 4, 4), np.nan)}, InputError),
        ({"a_batch": np.ones((6, 4, 4))}, InputError),
        ({"a_batch": np.ones((6, 1, 1))}, InputError),
        ({"a_batch": np.random.rand(6, 5, 5)}, InputError),
        ({"a_batch": np.random.rand(0, 4, 4)}, InputError),
        ({"a_batch": None}, InputError),
        ({"y_batch": np.array([0, 1, 2, 3, 4, 5])}, TargetError),
        ({"y_batch": np.array([0, 1, 2, 3, 4, -1])}, TargetError),
        ({"y_batch": np.array([0, 1, 2, 3, 4, 0.5])}, TargetError),
    ],
)
def test_bad_input_is_refused_before_any_pass(timm_vit, data, make, change, error):
    passes = []
    cv.spec_of(timm_vit, torch.as_tensor(data["x_batch"]))  # the first pass finds the blocks
    timm_vit.blocks[0].register_forward_hook(lambda *_: passes.append(1))  # an embedding is no pass
    with pytest.raises(error):
        make()(timm_vit, **{**data, "a_batch": np.random.rand(6, 4, 4), **change})
    assert passes == []


@pytest.mark.parametrize("make", ALL)
def test_plot(additive, make):
    model = additive(torch.randn(1, 4, 4))
    metric = make(remover=Fill(), return_curves=True)
    metric(model, model.ones(3), np.zeros(3, dtype=int), np.random.rand(3, 4, 4))
    metric.plot(show=False)
    axes = plt.gca()
    assert axes.get_ylabel() == metric.reading
    assert len(axes.lines) == len(metric.orders)
    plt.close("all")


def test_errors():
    with pytest.raises(OptionError, match="both"):
        qm.PerturbationAccuracy(score="both")
    with pytest.raises(OptionError, match="top"):
        qm.PerturbationAccuracy(explained="top")
    with pytest.raises(OptionError, match="include_zero"):
        qm.PerturbationAccuracy(include_zero=False, fractions=(0, 0.5))
