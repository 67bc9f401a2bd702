"""Fidelity against numbers computed by hand, and against what it promises of every map."""

from itertools import permutations

import numpy as np
import pytest
import quantus
import torch
from matplotlib import pyplot as plt
from quantus.helpers.enums import ScoreDirection

import quantus_metrics as qm
from captum_vit.errors import InputError, OptionError
from quantus_metrics.metrics.curves import plot_curves
from quantus_metrics.metrics.fidelity import area, fidelity
from quantus_metrics.perturb import Curve, Fill

W = torch.tensor([[[4.0, 1.0], [2.0, 3.0]]])
BY_HAND = {"remover": Fill(), "fractions": (0, 0.25, 0.5, 0.75, 1)}


def call(metric, model, maps, targets=None, **kwargs):
    maps = np.asarray(maps)
    y = np.zeros(len(maps), dtype=int) if targets is None else targets
    return metric(model=model, x_batch=model.ones(len(maps)), y_batch=y, a_batch=maps, **kwargs)


@pytest.fixture
def large(additive):
    """Two classes on 6 x 6 patches, and their weights: the map that explains each perfectly."""
    weights = torch.randn(2, 6, 6)
    return additive(weights), weights.numpy()


def test_functions_by_hand():
    x = torch.tensor([0, 0.5, 1])
    mif, lif = Curve(x, torch.tensor([[8.0, 4.0, 0.0]])), Curve(x, torch.tensor([[8.0, 8.0, 0.0]]))
    assert area(mif).tolist() == [50 * (8 + 4) / 2 + 50 * (4 + 0) / 2] == [400]
    assert area(lif, normalised=True).tolist() == [6]
    assert fidelity(mif, lif).tolist() == [200]
    assert fidelity(lif, mif, normalised=True).tolist() == [-2]


@pytest.mark.parametrize(("score", "value"), [("mif", 375), ("lif", 625), ("fidelity", 250)])
def test_scores_by_hand(additive, score, value):
    model = additive(W)
    assert call(qm.Fidelity(score=score, **BY_HAND), model, W) == [value]
    assert call(qm.Fidelity(score=score, normalised=True, **BY_HAND), model, W) == [value / 100]


def test_the_true_weights_are_the_best_map_of_all(additive):
    maps = torch.tensor(list(permutations(W.flatten().tolist()))).view(-1, 2, 2)
    scores = call(qm.Fidelity(**BY_HAND), additive(W), maps)
    assert max(scores) == scores[maps.tolist().index(W[0].tolist())] == 250
    assert min(scores) == -250
    assert sum(scores) == pytest.approx(0)


def test_a_class_explained_by_another_is_worse(large):
    model, weights = large
    own, other = call(qm.Fidelity(remover=Fill()), model, weights[[0, 1]])
    assert own > other
    assert call(qm.Fidelity(remover=Fill()), model, weights[[0, 1]], np.array([1, 1]))[1] > 0


def test_a_map_that_knows_no_class_cannot_serve_two_opposite_ones(additive):
    weights = torch.randn(1, 6, 6)
    model, y = additive(torch.cat([weights, -weights])), np.array([0, 1])
    agnostic = call(qm.Fidelity(remover=Fill()), model, weights.abs().repeat(2, 1, 1), y)
    own = call(qm.Fidelity(remover=Fill()), model, torch.cat([weights, -weights]), y)
    assert sum(agnostic) == pytest.approx(0, abs=1e-3)
    assert min(own) > max(agnostic)


def test_ties_cost_nothing_to_a_map_of_patches_in_pixels(large):
    model, weights = large
    pixels = weights.repeat(4, 1).repeat(4, 2)
    grids = call(qm.Fidelity(), model, weights)
    assert call(qm.Fidelity(patch_size=4), model, pixels) == pytest.approx(grids, rel=1e-6)
    assert call(qm.Fidelity(patch_size=4), model, pixels[:, None]) == pytest.approx(grids, rel=1e-6)


def test_all_negative_maps_are_maps(additive):
    assert call(qm.Fidelity(**BY_HAND), additive(W), -W) == [-250]


def test_direction():
    assert qm.Fidelity.score_direction is qm.Fidelity().score_direction is ScoreDirection.HIGHER
    assert qm.Fidelity(score="lif").score_direction is ScoreDirection.HIGHER
    assert qm.Fidelity(score="mif").score_direction is ScoreDirection.LOWER


@pytest.mark.parametrize(("score", "images"), [("fidelity", 40), ("mif", 21), ("lif", 21)])
def test_forward_passes(additive, score, images):
    model = additive(torch.randn(1, 6, 6))
    call(qm.Fidelity(score=score), model, torch.randn(5, 6, 6), batch_size=2)
    assert model.images == 5 * images
    assert model.passes == 3 * images  # batches of 2, 2 and 1


def test_curves_are_kept_when_asked_for(additive):
    model, metric = additive(W), qm.Fidelity(return_curves=True, **BY_HAND)
    scores = call(metric, model, W.repeat(3, 1, 1), batch_size=2)
    assert metric.curves["mif"].scores.tolist() == [[10, 6, 3, 1, 0]] * 3
    assert fidelity(metric.curves["mif"], metric.curves["lif"]).tolist() == scores
    with pytest.raises(InputError, match="return_curves=True"):
        _ = qm.Fidelity().curves


def test_the_symmetric_relevance_gain_is_the_normalised_fidelity(additive):
    model, metric = additive(W), qm.SRG(return_curves=True, **BY_HAND)
    assert call(metric, model, W) == [2.5] == call(qm.Fidelity(normalised=True, **BY_HAND), additive(W), W)
    assert model.images == 2 * (5 - 2) + 2  # the whole and the empty image serve both orders
    assert metric.curves["lif"].scores.tolist() == [[10, 9, 7, 4, 0]]


@pytest.mark.slow
def test_plot(additive, tmp_path):
    metric = qm.Fidelity(return_curves=True, **BY_HAND)
    with pytest.raises(InputError, match="call it first"):
        metric.plot(show=False)
    call(metric, additive(W), W)
    metric.plot(show=False, path_to_save=str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").stat().st_size > 1000
    mif, lif = plot_curves(metric.curves).lines
    assert mif.get_ydata().tolist() == [10, 6, 3, 1, 0]
    assert lif.get_xdata().tolist() == [0, 25, 50, 75, 100]
    plt.close("all")


def test_unknown_score():
    with pytest.raises(OptionError, match="srg"):
        qm.Fidelity(score="srg")


def test_quantus_knows_it():
    metric = qm.Fidelity()
    assert isinstance(metric, quantus.Metric)
    assert metric.name == "Fidelity"
    assert metric.evaluation_category.value == "Faithfulness"
    assert metric.get_params["normalised"] is False
