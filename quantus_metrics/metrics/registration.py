"""On Quantus's shelves: `quantus.available_metrics()` lists what stands in `METRICS`."""

from __future__ import annotations

from quantus.helpers.constants import AVAILABLE_METRICS

from .aopc import AOPC
from .base import TokenMetric
from .box_sensitivity import BoxSensitivity
from .class_discrimination import ClassDiscrimination
from .compactness import Compactness
from .deletion import Deletion, Insertion
from .fidelity import Fidelity
from .grid_pointing import GridPointing
from .log_odds import LogOdds
from .perturbation_accuracy import PerturbationAccuracy
from .segmentation import Segmentation

METRICS: tuple[type[TokenMetric], ...] = (
    Fidelity,
    BoxSensitivity,
    ClassDiscrimination,
    Compactness,
    PerturbationAccuracy,
    AOPC,
    LogOdds,
    Deletion,
    Insertion,
    Segmentation,
    GridPointing,
)


def register() -> None:
    """Put the metrics where Quantus lists its own, each under its category and name.

    Importing `quantus_metrics` does this. Doing it twice does it once, and a name that is taken is left to
    its owner. It serves discovery only: ``quantus.evaluate`` takes instances, registered or not.
    """
    for metric in METRICS:
        AVAILABLE_METRICS.setdefault(metric.evaluation_category.value, {}).setdefault(metric.name, metric)


def unregister() -> None:
    """Leave Quantus's shelves as they were. The metrics go on working."""
    for metric in METRICS:
        category = metric.evaluation_category.value
        if AVAILABLE_METRICS.get(category, {}).get(metric.name) is metric:
            del AVAILABLE_METRICS[category][metric.name]
            if not AVAILABLE_METRICS[category]:
                del AVAILABLE_METRICS[category]
