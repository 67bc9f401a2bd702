"""Box sensitivity against its twin, on a model that adds up, and where there is nothing to correlate."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from scipy import stats

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.errors import InputError, OptionError, TargetError
from quantus_metrics.metrics.box_sensitivity import box_area, box_correlation, pearson
from quantus_metrics.perturb import DropTokens, Fill, MaskKeys
from quantus_metrics.perturb.box import box_changes, box_sums, draw_boxes
from tests.quantus_metrics import twins
from tests.quantus_metrics.conftest import Additive

SMALL = {"remover": Fill(), "sizes": (1, 2, 3), "n_boxes": 12}


def call(metric, model, maps, target=0, **kwargs):
    return metric(model, model.ones(len(maps)), np.full(len(maps), target), np.asarray(maps), **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize(("on_grid", "score"), [(False, "area"), (True, "area"), (False, "mean")])
def test_a_slow_twin(timm_vit, data, on_grid, score):
    model, x = timm_vit.double(), data["x_batch"][:3].astype(np.float64)
    maps, y = np.random.default_rng(1).standard_normal((3, 4, 4)), data["y_batch"][:3]

    @torch.no_grad()
    def ask(image):
        return model(torch.tensor(image)[None])[0].numpy()

    boxes = draw_boxes((32, 32), (8, 16, 24), 12, seed=5, step=8 if on_grid else 1).numpy()
    metric = qm.BoxSensitivity(**SMALL, seed=5, on_grid=on_grid, score=score, return_curves=True)
    scores = metric(model, x, y, maps, batch_size=2)
    slow = [twins.box_curve(ask, x[i], y[i], maps[i], boxes, 0.0) for i in range(3)]
    assert torch.stack(list(metric.curves.values()), 1).numpy() == pytest.approx(np.array(slow), abs=1e-6)
    total = [(r[0] + r[1]) / 2 + (r[1] + r[2]) / 2 if score == "area" else sum(r) / 3 for r in slow]
    assert scores == pytest.approx(total, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("on_grid", [True, False])
@given(st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_what_adds_up_correlates_exactly(on_grid, seed):
    weights = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(seed)).double()
    model = Additive(weights).double()
    metric = qm.BoxSensitivity(remover=Fill(), score="mean", on_grid=on_grid, n_boxes=20, seed=seed)
    maps = weights[:1].numpy()
    pixels = maps.repeat(4, 1).repeat(4, 2)
    assert call(metric, model, maps) == pytest.approx([1], abs=1e-12)
    assert call(metric, model, -maps) == pytest.approx([-1], abs=1e-12)
    assert call(metric, model, 1e-20 * maps) == pytest.approx([1], abs=1e-12)  # no scale
    assert call(qm.BoxSensitivity(remover=Fill(), patch_size=4, n_boxes=20), model, pixels) == (
        pytest.approx([3], abs=1e-12)  # the width of sizes 1 to 4
    )


@pytest.mark.slow
@given(st.integers(1, 5), st.integers(0, 99), st.booleans())
@settings(deadline=None)
def test_boxes_lie_within_the_image(n_sizes, seed, on_grid):
    sides = [4 * (k + 1) for k in range(n_sizes)]
    boxes = draw_boxes((24, 32), sides, 50, seed, step=4 if on_grid else 1)
    side, top, left = boxes.unbind(-1)
    assert (side == torch.tensor(sides)[:, None]).all()
    assert (top >= 0).all() and (left >= 0).all() and (top + side <= 24).all() and (left + side <= 32).all()
    assert not on_grid or not (boxes % 4).any()
    assert torch.equal(boxes, draw_boxes((24, 32), sides, 50, seed, step=4 if on_grid else 1))
    assert not torch.equal(boxes, draw_boxes((24, 32), sides, 50, seed + 1, step=4 if on_grid else 1))


def test_every_place_is_as_likely():
    boxes = draw_boxes((16, 16), (12,), 4000, step=4)
    places, counts = boxes[0, :, 1:].unique(dim=0, return_counts=True)
    assert places.tolist() == [[0, 0], [0, 4], [4, 0], [4, 4]]
    assert stats.chisquare(counts.numpy()).pvalue > 0.01
    pixels = draw_boxes((16, 16), (12,), 4000)[0, :, 1].bincount()
    assert len(pixels) == 5
    assert stats.chisquare(pixels.numpy()).pvalue > 0.01


def test_sums_by_hand():
    boxes = torch.tensor([[[4, 0, 0], [4, 4, 4], [2, 3, 3]]])
    relevance = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert box_sums(relevance, boxes, (8, 8)).tolist() == [[[16, 64, 1 + 2 + 3 + 4]]]


def test_changes_by_hand(additive):
    model = additive(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    boxes = torch.tensor([[[4, 0, 0], [4, 4, 4], [2, 3, 3]]])
    found = box_changes(model, torch.ones(1, 3, 8, 8), torch.tensor([0]), boxes, remover=Fill())
    assert found.tolist() == [[[1, 4, 10 / 16]]]
    assert box_area(torch.tensor([[0.5, 1.0, 0.0]]), (1, 2, 4)).tolist() == [0.75 + 1.0]


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=3, max_size=20))
@settings(deadline=None)
def test_pearson_is_scipys(pairs):
    x, y = np.array(pairs).T
    if min(np.ptp(x), np.ptp(y)) < 1e-3:
        return
    found = pearson(torch.tensor(x), torch.tensor(y)).item()
    assert found == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)


@pytest.mark.parametrize(("internal", "size"), [(None, 3), (7, 7), (1000, 1000)])
def test_passes_and_memory_are_as_documented(additive, internal, size):
    model, seen = additive(torch.randn(1, 7, 7)), []
    model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    metric = qm.BoxSensitivity(remover=Fill(), sizes=(1, 2), n_boxes=10, internal_batch_size=internal)
    call(metric, model, torch.randn(3, 7, 7))
    boxes = draw_boxes((28, 28), (4, 8), 10).flatten(0, 1)
    different = len(boxes.unique(dim=0)) + 1
    assert model.images == 3 * different <= 3 * 21
    assert model.passes == math.ceil(3 * different / size)
    assert max(seen) <= size


def test_boxes_that_are_drawn_twice_are_asked_once(additive):
    model = additive(torch.randn(1, 3, 3))
    call(qm.BoxSensitivity(remover=Fill(), sizes=(1, 2), n_boxes=100, on_grid=True), model, torch.randn(1, 3, 3))
    assert model.images == 1 + 9 + 4


def test_boxes_of_tokens_may_be_dropped(timm_vit, data):
    maps = np.random.default_rng(0).standard_normal((6, 4, 4))
    dropped, hidden = (
        qm.BoxSensitivity(sizes=(1, 2, 3), n_boxes=12, on_grid=True, remover=remover)(timm_vit, **data, a_batch=maps)
        for remover in (DropTokens(fallback=False), MaskKeys())
    )
    assert dropped == pytest.approx(hidden, abs=1e-4)


@pytest.mark.slow
def test_every_method_meets_the_same_boxes(timm_vit, data):
    maps = np.random.default_rng(0).standard_normal((6, 4, 4))
    metric = qm.BoxSensitivity(**SMALL)
    together = metric(timm_vit, **data, a_batch=maps)
    assert metric(timm_vit, **data, a_batch=maps) == together
    assert metric(timm_vit, **data, a_batch=maps, batch_size=1) == pytest.approx(together, abs=1e-4)
    assert qm.BoxSensitivity(**SMALL, seed=1)(timm_vit, **data, a_batch=maps) != together
    assert metric(timm_vit, **data, a_batch=-maps) == pytest.approx([-one for one in together], abs=1e-4)


def test_images_without_variance_are_skipped_and_counted(additive):
    model = additive(torch.stack([torch.randn(4, 4), torch.zeros(4, 4)]))
    maps = np.random.default_rng(0).standard_normal((3, 4, 4))
    metric = qm.BoxSensitivity(**SMALL, return_aggregate=True)
    with pytest.warns(UserWarning, match="1 of 3 samples"):
        (mean,) = metric(model, model.ones(3), np.array([0, 1, 0]), maps)  # class 1 never moves
    assert [math.isnan(score) for score in metric.scores] == [False, True, False]
    assert metric.skipped == metric.summary().skipped == 1
    assert mean == pytest.approx((metric.scores[0] + metric.scores[2]) / 2)
    corner = np.zeros((1, 4, 4))
    corner[0, 0, 0] = 1  # boxes that all miss the only relevance
    boxes, changes = torch.tensor([[[4, 8, 8], [4, 9, 9], [4, 12, 12]]]), torch.tensor([[[1.0, 2.0, 3.0]]])
    assert box_correlation(torch.tensor(corner), boxes, changes, (16, 16)).isnan().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(metric, model, maps)
    assert metric.skipped == 0


@pytest.mark.parametrize(
    ("options", "arrays", "error", "complaint"),
    [
        ({}, {"a_batch": np.full((6, 4, 4), np.nan)}, InputError, "Finite"),
        ({}, {"a_batch": np.ones((6, 4, 4))}, InputError, "varies"),
        ({}, {"a_batch": np.ones((6, 1, 1))}, InputError, "varies"),
        ({}, {"a_batch": np.random.rand(6, 5, 5)}, InputError, "h divides 32"),
        ({}, {"a_batch": np.random.rand(6, 4, 8)}, InputError, "Square patches"),
        ({}, {"a_batch": np.random.rand(0, 4, 4)}, InputError, "per sample"),
        ({}, {"y_batch": np.array([0, 1, 2, 3, 4, 5])}, TargetError, "Classes from 0 to 4"),
        ({"sizes": (1, 5)}, {}, InputError, "moved within"),
        ({"sizes": (1, 4)}, {}, InputError, "moved within"),
        ({"patch_size": 16}, {}, InputError, "two sizes"),
        ({"patch_size": 64, "score": "mean", "sizes": (1,)}, {}, InputError, "moved within"),
        ({"sizes": (2, 1)}, {}, OptionError, "increase"),
        ({"sizes": (0, 1)}, {}, OptionError, "increase"),
        ({"n_boxes": 2}, {}, OptionError, "n_boxes"),
        ({"on_grid": True, "patch_size": 5}, {}, OptionError, "divides"),
    ],
)
def test_bad_input_is_refused_before_any_pass(timm_vit, data, options, arrays, error, complaint):
    passes = []
    cv.spec_of(timm_vit, torch.as_tensor(data["x_batch"]))  # the first pass finds the blocks
    timm_vit.blocks[0].register_forward_hook(lambda *_: passes.append(1))  # an embedding is no pass
    with pytest.raises(error, match=complaint):
        qm.BoxSensitivity(**options)(timm_vit, **{**data, "a_batch": np.random.rand(6, 4, 4), **arrays})
    assert passes == []


def test_bad_options():
    for options in ({"score": "sum"}, {"sizes": (3,)}, {"patch_size": 0}):
        with pytest.raises(OptionError):
            qm.BoxSensitivity(**options)
    assert qm.BoxSensitivity(score="mean", sizes=(3,)).score_range == (-1, 1)
    assert qm.BoxSensitivity(sizes=(1, 5)).score_range == (-4, 4)


def test_the_default_unit_is_a_patch_or_a_fourteenth(additive):
    model = additive(torch.randn(1, 4, 4), patch=7)
    metric = qm.BoxSensitivity(remover=Fill(), n_boxes=5, return_curves=True)
    call(metric, model, torch.randn(1, 4, 4))
    assert list(metric.curves) == [1, 2, 3]
    call(metric, model, torch.randn(1, 28, 28))
    assert list(metric.curves) == list(range(1, 14))


def test_plot(additive):
    model, metric = additive(torch.randn(1, 4, 4)), qm.BoxSensitivity(**SMALL, return_curves=True)
    with pytest.raises(InputError, match="call it first"):
        metric.plot(show=False)
    call(metric, model, torch.randn(5, 4, 4))
    metric.plot(show=False)
    line = plt.gca().lines[0]
    assert line.get_xdata().tolist() == [1, 2, 3]
    assert line.get_ydata().tolist() == pytest.approx([r.mean().item() for r in metric.curves.values()])
    plt.close("all")
    with pytest.raises(InputError, match="return_curves=True"):
        _ = qm.BoxSensitivity().curves
