"""What metrics draw of the curves that they keep."""

import numpy as np
import pytest
import torch

import quantus_metrics as qm
from quantus_metrics.perturb import Fill

FIDELITY = {"remover": Fill(), "fractions": (0.0, 0.5, 1.0), "return_curves": True}
BOXES = {"remover": Fill(), "sizes": (1, 2, 3), "n_boxes": 10, "patch_size": 4, "return_curves": True}


@pytest.fixture
def call(additive):
    """Runs a metric on four images, and gives what a report has of them: the kept numbers of each."""

    def run(metric):
        torch.manual_seed(0)
        model, maps = additive(torch.randn(2, 4, 4)), np.random.default_rng(0).standard_normal((4, 4, 4))
        wrong = np.random.default_rng(1).standard_normal((4, 4, 4))
        custom = {"custom_batch": wrong} if isinstance(metric, qm.ClassDiscrimination) else {}
        metric(model, model.ones(4), np.zeros(4, dtype=int), maps, **custom)
        return [{name: rows[i].tolist() for name, rows in metric.kept.items()} for i in range(4)]

    return run


def test_fidelity_draws_both_orders_and_what_is_between(call):
    metric = qm.Fidelity(**FIDELITY)
    kept = call(metric)
    mif, lif, between = metric.panels(kept[0])
    assert [panel.title for panel in (mif, lif, between)] == ["MIF", "LIF", "LIF less MIF"] and mif.x == [0, 50, 100]
    assert np.array_equal(between.curves(kept), lif.curves(kept) - mif.curves(kept))
    areas = torch.trapezoid(torch.tensor(between.curves(kept)), torch.tensor(between.x))
    assert areas.tolist() == pytest.approx(metric.scores, rel=1e-4)


def test_boxes_are_drawn_over_their_sizes_without_samples_that_have_none(call):
    metric = qm.BoxSensitivity(**BOXES)
    kept = call(metric)
    (panel,) = metric.panels(kept[0])
    assert panel.x == [1, 2, 3] and panel.curves(kept).shape == (4, 3)
    assert panel.curves(kept)[:, 1] == pytest.approx([sample["2"] for sample in kept])
    kept[1]["2"] = float("nan")
    assert panel.curves([*kept, {}]).shape == (3, 3)


@pytest.mark.parametrize("inner", [qm.Fidelity(**FIDELITY), qm.BoxSensitivity(**BOXES)], ids=lambda m: m.name)
def test_class_discrimination_draws_the_wrong_class_and_the_difference(call, inner):
    metric = qm.ClassDiscrimination(inner)
    kept = call(metric)
    wrong, difference = metric.panels(kept[0])
    assert "wrong class" in wrong.title and difference.title.endswith("right less wrong")
    own = [{name.removeprefix("right "): found for name, found in sample.items()} for sample in kept]
    right = inner.panels(own[0])[-1].curves(own)
    assert difference.curves(kept) == pytest.approx(right - wrong.curves(kept))
    assert abs(difference.curves(kept)).max() > 0


def test_what_was_not_kept_is_not_drawn():
    metrics = (qm.Fidelity(), qm.BoxSensitivity(), qm.ClassDiscrimination(), qm.Compactness())
    assert all(metric.panels(["score"]) == [] for metric in metrics)
