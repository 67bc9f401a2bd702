import importlib
from pathlib import Path

import quantus

import quantus_metrics as qm
from quantus_metrics.metrics import METRICS


def names():
    return {category: list(metrics) for category, metrics in quantus.available_metrics().items()}


def test_importing_registers_and_it_can_be_undone():
    assert "Fidelity" in names()["Faithfulness"]
    assert quantus.AVAILABLE_METRICS["Faithfulness"]["Fidelity"] is qm.Fidelity
    try:
        qm.unregister()
        bare = names()
        assert "Fidelity" not in bare["Faithfulness"]
        qm.unregister()
        assert names() == bare
    finally:
        qm.register()
    full = names()
    qm.register()
    importlib.reload(qm)
    assert names() == full
    for category, ours in {
        "Faithfulness": [
            *("Fidelity", "Box Sensitivity", "Perturbation Accuracy", "AOPC", "Log Odds", "Deletion", "Insertion"),
        ],
        "Randomisation": ["Class Discrimination"],
        "Complexity": ["Compactness"],
        "Localisation": ["Segmentation", "Grid Pointing"],
    }.items():
        assert full[category] == [*bare[category], *ours]


def test_a_name_that_is_taken_is_left_alone(monkeypatch):
    shelf = dict(quantus.AVAILABLE_METRICS["Faithfulness"], Fidelity=quantus.IROF)
    monkeypatch.setitem(quantus.AVAILABLE_METRICS, "Faithfulness", shelf)
    qm.register()
    qm.unregister()
    assert shelf["Fidelity"] is quantus.IROF


def test_unregistered_metrics_work_all_the_same(timm_vit, data):
    try:
        qm.unregister()
        maps = data["x_batch"].sum(1, keepdims=True)
        assert len(qm.Fidelity(patch_size=8)(timm_vit, **data, a_batch=maps)) == 6
    finally:
        qm.register()


def test_the_page_on_quantus_lists_every_metric_under_its_category():
    rows = (Path(__file__).parents[3] / "docs" / "quantus.md").read_text("utf-8").splitlines()
    for metric in METRICS.values():
        (row,) = (row for row in rows if row.startswith("| `") and f"`{metric.__name__}`" in row.split("|")[1])
        assert metric.evaluation_category.value == row.split("|")[2].strip()
