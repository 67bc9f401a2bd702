import importlib
import re
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
    for category, there in full.items():
        ours = [metric.name for metric in METRICS.values() if metric.evaluation_category.value == category]
        assert there == [*bare.get(category, []), *ours]


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


def test_the_page_on_quantus_lists_a_metric_under_its_category():
    page = (Path(__file__).parents[3] / "docs" / "quantus.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.startswith("| `")]
    listed = {name: row[2] for row in rows for name in re.findall("`(.+?)`", row[1])}
    wanted = {name: kind.evaluation_category.value for name, kind in METRICS.items()}
    wrong = {name: category for name, category in wanted.items() if listed.get(name, category) != category}
    assert not wrong, f"docs/quantus.md: {wrong} are the categories"
