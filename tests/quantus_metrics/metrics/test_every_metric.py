"""What Quantus and its users may expect of each metric that is registered."""

import gc
import math
import random
import warnings
import weakref

import numpy as np
import pytest
import quantus
import torch
from captum.attr import InputXGradient
from quantus.helpers.enums import EvaluationCategory, ScoreDirection

import captum_vit as cv
import quantus_metrics as qm
from quantus_metrics.metrics import METRICS

FEW = {
    "Box Sensitivity": {"sizes": (1, 2), "n_boxes": 10, "patch_size": 8},
    "Deletion": {"patch_size": 8},
    "Insertion": {"score": "aopc", "patch_size": 8},
    "F-Fidelity": {"sizes": (0.25, 0.75), "n_draws": 2},
    "Class Discrimination": {"metric": qm.Fidelity(patch_size=8, fractions=(0, 0.5, 1))},
}
ALONE = "A score depends on the other samples of its batch: reduce over dimensions behind the first alone."
ONE_MAP = (
    "The same map in another form has another score: read `batch.relevance`, (B, 1, h, w), not the arrays of the call."
)
KEPT = (
    "The metric changed what it was given, or drew from a global generator: work on copies, and draw from its own seed."
)
SMALL = [lambda kind=kind, **more: kind(**FEW.get(kind.name, {}), **more) for kind in METRICS.values()]
every_metric = pytest.mark.parametrize("make", SMALL, ids=METRICS)


@pytest.fixture
def arrays(data):
    """What a call of any metric takes; maps of pixels, as Quantus has them."""
    maps = np.random.default_rng(1).standard_normal((6, 1, 4, 4), dtype=np.float32).repeat(8, 2).repeat(8, 3)
    masks = np.zeros((6, 1, 32, 32))
    masks[:, :, 8:24, 8:24] = 1
    return {**data, "a_batch": maps, "s_batch": masks, "explain_func": qm.explain_func(cv.LayerCDAM)}


@pytest.mark.parametrize("kind", METRICS.values(), ids=METRICS)
def test_it_is_a_quantus_metric_and_needs_no_arguments(kind):
    metric = kind()
    assert isinstance(metric, quantus.Metric)
    assert isinstance(metric.score_direction, ScoreDirection)
    assert isinstance(metric.evaluation_category, EvaluationCategory)
    assert metric.score_range[0] < metric.score_range[1], "score_range = (lowest, highest) in the class"
    qm.register()  # a metric that was added to METRICS later too
    assert quantus.AVAILABLE_METRICS[kind.evaluation_category.value][kind.name] is kind
    assert getattr(qm, kind.__name__, kind) is kind  # one of your own is in your module


@pytest.mark.slow
@every_metric
def test_one_finite_float_per_sample_within_the_range_and_of_that_sample_alone(timm_vit, arrays, make):
    metric = make()
    scores, (low, high) = metric(timm_vit, **arrays), metric.score_range
    assert [type(score) for score in scores] == [float] * 6, "`_measure` gives one number for each sample, (B,)"
    outside = [score for score in scores if not low <= score <= high]
    assert not outside, f"{outside} are not within score_range = ({low:g}, {high:g}): correct the one or the other"
    for size in (1, 4):
        assert metric(timm_vit, **arrays, batch_size=size) == pytest.approx(scores, abs=1e-3), ALONE


@pytest.mark.slow
@every_metric
def test_the_aggregate_and_the_summary_agree(timm_vit, arrays, make):
    metric = make(return_aggregate=True)
    (aggregate,) = metric(timm_vit, **arrays)
    summary = metric.summary()
    assert len(metric.scores) == summary.n == 6
    assert summary.mean == pytest.approx(aggregate), (
        "The aggregate is the mean over samples: leave `aggregate_func` as it is."
    )
    assert summary.low <= aggregate <= summary.high
    assert metric.summary() == summary


@pytest.mark.slow
@every_metric
def test_channels_and_grids_are_the_same_map(timm_vit, arrays, make):
    pixels = make()(timm_vit, **arrays)
    coloured = arrays["a_batch"] * np.array([0.5, 0.25, 0.25], dtype=np.float32)[:, None, None]
    assert make()(timm_vit, **{**arrays, "a_batch": coloured}) == pytest.approx(pixels, abs=1e-3), ONE_MAP
    assert make()(timm_vit, **{**arrays, "a_batch": arrays["a_batch"][:, 0]}) == pixels, ONE_MAP


@pytest.mark.slow
@every_metric
def test_maps_are_made_on_the_way(timm_vit, arrays, make):
    made = arrays["explain_func"](timm_vit, arrays["x_batch"], arrays["y_batch"])
    before = make()(timm_vit, **{**arrays, "a_batch": made})
    after = make()(timm_vit, **{**arrays, "a_batch": None}, batch_size=4)
    assert after == pytest.approx(before, abs=1e-3), ALONE


@every_metric
def test_everything_is_left_as_found(timm_vit, arrays, make):
    state = {name: value.clone() for name, value in timm_vit.state_dict().items()}
    given = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
    copies = {name: array.copy() for name, array in given.items()}
    for array in given.values():
        array.flags.writeable = False
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    metric = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric(timm_vit, **arrays)
        metric.summary()
    assert torch.equal(torch_state, torch.get_rng_state()), KEPT
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, np.random.get_state(), strict=True)), KEPT
    assert python_state == random.getstate(), KEPT
    assert all(np.array_equal(given[name], copies[name]) for name in given), KEPT
    assert all(torch.equal(value, state[name]) for name, value in timm_vit.state_dict().items()), KEPT
    assert all(p.grad is None and p.requires_grad for p in timm_vit.parameters()), KEPT
    assert not any(m._forward_hooks or m._forward_pre_hooks or m.training for m in timm_vit.modules()), KEPT


@pytest.mark.slow
@every_metric
def test_no_reference_to_the_model_is_kept(additive, arrays, make):
    gc.freeze()  # what was there before need not be looked through
    model = additive(torch.randn(5, 4, 4), patch=8)
    model.pretrained_cfg = {}
    metric = make(**({"remover": qm.perturb.Fill()} if "remover" in make().__dict__ else {}))
    metric(model, **{**arrays, "explain_func": qm.explain_func(InputXGradient)})
    gone = weakref.ref(model)
    del model
    gc.collect()
    gc.unfreeze()
    assert gone() is None, "The metric holds the model after the call: keep nothing of `batch` in `self`."


@pytest.mark.slow
@every_metric
def test_half_precision_on_hugging_face(hf_vit, arrays, make):
    full = make()(hf_vit, **arrays)
    half = make()(hf_vit.bfloat16(), **arrays)
    assert all(map(math.isfinite, half)), "A score of a bfloat16 model is not finite: compute it in float32 or wider."
    assert len(half) == len(full) == 6


@pytest.mark.slow
@every_metric
def test_an_object_kept_for_many_calls_forgets_the_last(timm_vit, arrays, make):
    metric = make()
    first = metric(timm_vit, **arrays)
    flipped = metric(timm_vit, **{**arrays, "a_batch": -arrays["a_batch"]})
    assert metric(timm_vit, **arrays) == first, "A score depends on calls before: keep nothing of one call in `self`."
    assert metric.all_evaluation_scores == [*first, *flipped, *first]


@pytest.mark.slow
def test_quantus_evaluates_them_all_beside_its_own(timm_vit, arrays):
    metrics = {kind.name: make() for kind, make in zip(METRICS.values(), SMALL, strict=True)}
    theirs = {"Sparseness": quantus.Sparseness(disable_warnings=True)}
    methods = {"CDAM": arrays["explain_func"], "IxG": qm.explain_func(InputXGradient)}
    x, y, s = arrays["x_batch"], arrays["y_batch"], arrays["s_batch"]
    found = quantus.evaluate(
        {**metrics, **theirs}, methods, timm_vit, x, y, s_batch=s, agg_func=list, explain_func_kwargs={}
    )
    for name, explain in methods.items():
        assert set(found[name]) == {*metrics, *theirs}
        for metric in metrics.values():
            direct = metric(timm_vit, x, y, s_batch=s, explain_func=explain)
            assert found[name][metric.name] == pytest.approx(direct, abs=1e-3)
