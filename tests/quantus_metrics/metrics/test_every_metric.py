"""The exam of metrics: each name in METRICS answers the same questions, and so does one of your own (`-p mine`)."""

import copy
import gc
import math
import warnings
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from captum.attr import InputXGradient
from quantus.helpers.enums import EvaluationCategory, ScoreDirection

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.errors import InputError
from quantus_metrics.bridge import sign_of
from quantus_metrics.metrics import METRICS
from quantus_metrics.perturb import Fill
from tests.contracts.fingerprint import fingerprint
from tests.quantus_metrics.conftest import Additive, tiny_vit

BY_PATCH = {"patch_size": 8, "fractions": (0.0, 0.25, 0.5, 1.0)}
INNER = {"patch_size": 8, "fractions": (0.25, 0.5)}
FEW: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("Fidelity", "SRG", "AOPC", "LogOdds"), BY_PATCH),
    **dict.fromkeys(("PerturbationAccuracy", "Deletion"), INNER),
    "SaCo": {"patch_size": 8, "fractions": (0.25, 0.5, 1.0)},
    "Insertion": {**INNER, "score": "aopc"},
    "BoxSensitivity": {"sizes": (1, 2), "n_boxes": 10, "patch_size": 8},
    "ClassDiscrimination": {"metric": qm.Fidelity(**BY_PATCH, remover=Fill())},
    "FFidelity": {"patch_size": 8, "sizes": (0.25, 0.75), "n_draws": 8, "reads": "probability"},
    "IDSDS": {"patch_size": 8},
    "Completeness": {"patch_size": 8},
}
"""Options with which a metric takes patches of 8 x 8, and few steps."""


def small(name: str, **more: Any) -> qm.metrics.TokenMetric:
    return METRICS[name](**FEW.get(name, {}), **more)


every_metric = pytest.mark.parametrize("name", METRICS)
VARIANTS: dict[str, Callable[..., qm.metrics.TokenMetric]] = {
    **{name: lambda name=name, **more: small(name, **more) for name in METRICS},
    "Fidelity, MIF": lambda **more: small("Fidelity", score="mif", **more),
    "PerturbationAccuracy, positive": lambda **more: small("PerturbationAccuracy", score="positive", **more),
    "PerturbationAccuracy, difference": lambda **more: small("PerturbationAccuracy", score="difference", **more),
    "Deletion, AOPC": lambda **more: small("Deletion", score="aopc", **more),
    "Insertion, accuracy": lambda **more: qm.Insertion(**INNER, **more),
    "Segmentation, pixels": lambda **more: qm.Segmentation(score="pixel_accuracy", **more),
    "Segmentation, mAP": lambda **more: qm.Segmentation(score="two_class_ap", **more),
    "Segmentation, AP": lambda **more: qm.Segmentation(score="ap", **more),
    "MPRT, SSIM": lambda **more: qm.MPRT(similarity="ssim", **more),
}
"""Metrics, and scores of theirs that read a map in another form."""
every_variant = pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)

MASK = np.zeros((1, 1, 32, 32))
MASK[:, :, 8:24, 8:24] = 1
ALONE = "A score depends on the other samples of its batch: reduce over dimensions behind the first alone."
ONE_MAP = (
    "The same map in another form has another score: read `batch.relevance`, (B, 1, h, w), not the arrays of the call."
)
KEPT = (
    "The metric changed what it was given, or drew from a global generator: work on copies, and draw from its own seed."
)


@pytest.fixture(scope="module")
def explain():
    return qm.explain_func(cv.LayerCDAM)


@pytest.fixture(scope="module")
def net():
    return tiny_vit()


@pytest.fixture(scope="module")
def made(net, explain):
    x, y = np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32), np.arange(4)
    return {"x_batch": x, "y_batch": y, "a_batch": explain(net, x, y), "s_batch": MASK.repeat(4, 0)}


@pytest.fixture
def arrays(made, explain):
    """What a call of any metric takes; maps of pixels, as Quantus has them."""
    return {**{name: array.copy() for name, array in made.items()}, "explain_func": explain}


@pytest.fixture(scope="module")
def own(net, made, explain):
    """The scores of a metric by its name."""
    return cache(lambda name: small(name)(net, **made, explain_func=explain))


@every_metric
def test_it_is_a_quantus_metric_and_needs_no_arguments(name):
    kind = METRICS[name]
    metric = kind()
    assert isinstance(metric, quantus.Metric)
    assert isinstance(metric.score_direction, ScoreDirection)
    assert isinstance(metric.evaluation_category, EvaluationCategory)
    assert metric.score_range[0] < metric.score_range[1], "score_range = (lowest, highest) in the class"
    qm.register()  # a metric that was added to METRICS later too
    assert quantus.AVAILABLE_METRICS[kind.evaluation_category.value][kind.name] is kind
    assert getattr(qm, kind.__name__, kind) is kind  # one of your own is in your module


@every_metric
def test_one_finite_float_per_sample_within_the_range_and_of_that_sample_alone(net, arrays, name):
    metric = small(name, return_aggregate=True)
    (aggregate,), scores = metric(net, **arrays), metric.scores
    assert [type(score) for score in scores] == [float] * 4, "`_measure` gives one number for each sample, (B,)"
    low, high = metric.score_range
    outside = [score for score in scores if not (math.isfinite(score) and low <= score <= high)]
    assert not outside, f"{outside} are not within score_range = ({low:g}, {high:g}): correct the one or the other"
    told = metric.summary(n_resamples=49)
    assert told.n == 4 and told.low <= told.mean <= told.high
    assert told.mean == pytest.approx(aggregate), (
        "The aggregate is the mean over samples: leave `aggregate_func` as it is."
    )
    on_the_way = small(name)(net, **{**arrays, "a_batch": None}, batch_size=3)
    assert on_the_way == pytest.approx(scores, abs=1e-3), ALONE


@every_metric
def test_channels_grids_and_wider_numbers_are_the_same_map(net, arrays, own, name):
    pixels, maps = own(name), arrays["a_batch"]
    coloured = maps.astype(np.float64) * np.array([0.5, 0.25, 0.25])[:, None, None]
    assert small(name)(net, **{**arrays, "a_batch": coloured}) == pytest.approx(pixels, abs=1e-3), ONE_MAP
    assert small(name)(net, **{**arrays, "a_batch": maps[:, 0]}) == pixels, ONE_MAP


@every_metric
def test_everything_is_left_as_found_also_after_an_error(net, arrays, explain, name):
    given = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
    copies = {name: array.copy() for name, array in given.items()}
    for array in given.values():
        array.flags.writeable = False
    before, metric, calls = fingerprint(net), small(name), []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric(net, **arrays)
    assert fingerprint(net) == before, KEPT
    assert all(np.array_equal(given[name], copies[name]) for name in given), KEPT

    def fails(model, inputs, targets, **_):
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return explain(model, inputs, targets)

    with pytest.raises(ZeroDivisionError):
        metric(net, **{**arrays, "a_batch": None, "explain_func": fails}, batch_size=2)
    assert fingerprint(net) == before, "After an error in the middle, the model is not as it was: use `finally`."


@every_metric
def test_no_reference_to_the_model_is_kept(net, arrays, name):
    gc.freeze()  # what was there before need not be looked through
    model = copy.deepcopy(net)
    metric = small(name)
    metric(model, **arrays)
    gone = weakref.ref(model)
    del model
    gc.collect()
    gc.unfreeze()
    assert gone() is None, "The metric holds the model after the call: keep nothing of `batch` in `self`."


@every_metric
def test_half_precision_on_hugging_face(hf_vit, arrays, name):
    half = small(name)(hf_vit.bfloat16(), **arrays)
    assert all(map(math.isfinite, half)), "A score of a bfloat16 model is not finite: compute it in float32 or wider."
    assert len(half) == 4


@every_metric
def test_an_object_kept_for_many_calls_forgets_the_last_and_draws_from_its_own_seed(net, arrays, own, name):
    upside_down = {"a_batch": -arrays["a_batch"], "explain_func": lambda **call: -arrays["explain_func"](**call)}
    metric = small(name)
    flipped = metric(net, **{**arrays, **upside_down})
    torch.manual_seed(1)
    np.random.seed(1)
    again = metric(net, **arrays)
    assert again == own(name), "A score depends on calls before, or on global random numbers."
    assert metric.all_evaluation_scores == [*flipped, *again]


@every_variant
def test_oracle_beats_random_beats_inverted(make):
    """Where patches add up, on images on which all count: the weights, the same at random places, their negative."""
    if not make().compares_maps:
        return
    metric = make(**({"remover": Fill()} if "remover" in vars(make()) else {}))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        size = rng.uniform(0.05, 2, 16)
        weights = np.where(np.arange(16) < 8, size, -size / 4)  # for the class, and against it
        random = [rng.permutation(weights) for _ in range(6)]
        maps = np.stack([weights, *random, -weights]).reshape(8, 1, 4, 4)
        model = Additive(torch.tensor(np.stack([weights, -weights]).reshape(2, 4, 4), dtype=torch.float32), patch=8)
        masks = (maps[:1] > 0).repeat(8, 2).repeat(8, 3).repeat(8, 0).astype(float)
        wrong = rng.standard_normal((1, 1, 4, 4)).repeat(8, 0)
        found = metric(model, model.ones(8), np.zeros(8, int), maps, masks, custom_batch=wrong)
        best, *chance, worst = (sign_of(metric) * score for score in found)
        assert worst - 1e-4 <= np.mean(chance) <= best + 1e-4, found
        assert worst < best, f"{found}: is `score_direction` right? Or is `compares_maps` False?"


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ordinal": lambda maps: np.exp(maps / maps.std()),
    "interval": lambda maps: maps + maps.std(),
    "ratio": lambda maps: 4 * maps,
}
"""By level, what leaves a score of that level alone, and of the levels before it."""


@every_variant
def test_a_score_counts_of_a_map_what_its_level_says(net, arrays, explain, make):
    levels, metric = [*CHANGES, "absolute"], make()

    def scores(change):
        def changed(model, inputs, targets, **_):
            return change(explain(model, inputs, targets).astype(np.float64))

        return make()(net, **{**arrays, "a_batch": None, "explain_func": changed})

    own, at = scores(lambda maps: maps), levels.index(metric.level)
    for level in levels[at:-1]:
        assert scores(CHANGES[level]) == pytest.approx(own, abs=1e-5, rel=1e-5), f'level = "{level}" is not so'
    if at:
        same = scores(CHANGES[levels[at - 1]]) == pytest.approx(own, abs=1e-7, rel=1e-7)
        assert not same, f'level = "{levels[at - 1]}" is so too: state it'


@every_metric
@pytest.mark.parametrize("on_the_way", [False, True], ids=["given", "made"])
def test_maps_that_rank_nothing_are_refused_by_name(net, arrays, name, on_the_way):
    def refused(maps, complaint):
        kind = {"a_batch": None, "explain_func": lambda **_: maps} if on_the_way else {"a_batch": maps}
        with pytest.raises(InputError, match=complaint):
            small(name)(net, **{**arrays, **kind})

    for value, complaint in ((np.nan, "Finite"), (-np.inf, "Finite"), (0.5, "constant map ranks nothing")):
        maps = arrays["a_batch"].copy()
        maps[3] = value
        refused(maps, rf"(?s){complaint}.*sample\(s\) \[3\] of 4")
    refused(arrays["a_batch"][..., :0], r"\(4, 1, 32, 0\)")
    refused(arrays["a_batch"][:0], "0")


@pytest.mark.slow
def test_quantus_evaluates_them_all_beside_its_own(net, arrays):
    metrics = {METRICS[name].name: small(name) for name in METRICS}
    theirs = {"Sparseness": quantus.Sparseness(disable_warnings=True)}
    methods = {"CDAM": arrays["explain_func"], "IxG": qm.explain_func(InputXGradient)}
    x, y, s = arrays["x_batch"], arrays["y_batch"], arrays["s_batch"]
    found = quantus.evaluate(
        {**metrics, **theirs}, methods, net, x, y, s_batch=s, agg_func=list, explain_func_kwargs={}
    )
    for method, explain in methods.items():
        assert set(found[method]) == {*metrics, *theirs}
        for metric in metrics.values():
            direct = metric(net, x, y, s_batch=s, explain_func=explain)
            assert found[method][metric.name] == pytest.approx(direct, abs=1e-3)
