"""Every metric, METRICS by name, and their registration with Quantus: `quantus.available_metrics()` lists them."""

from __future__ import annotations

from quantus.helpers.constants import AVAILABLE_METRICS

from .aopc import AOPC
from .base import TokenMetric
from .box_sensitivity import BoxSensitivity
from .class_discrimination import ClassDiscrimination
from .compactness import Compactness
from .completeness import Completeness
from .deletion import Deletion, Insertion
from .ffidelity import FFidelity
from .fidelity import Fidelity
from .grid_pointing import GridPointing
from .idsds import IDSDS
from .log_odds import LogOdds
from .mprt import MPRT
from .perturbation_accuracy import PerturbationAccuracy
from .saco import SaCo
from .segmentation import Segmentation
from .srg import SRG

__all__ = [
    "METRICS",
    # of the CDAM paper
    "Fidelity",
    "BoxSensitivity",
    "ClassDiscrimination",
    "Compactness",
    # of the papers of Prediction Maps and VTranM
    "PerturbationAccuracy",
    "AOPC",
    "LogOdds",
    # of the SkipPLUS paper
    "Deletion",
    "Insertion",
    "Segmentation",
    # for models trained on what the metric shows them
    "IDSDS",
    "FFidelity",
    # the pointing game on mosaics
    "GridPointing",
    # of other papers
    "SRG",
    "SaCo",
    "MPRT",
    "Completeness",
    "register",
    "unregister",
]

METRICS: dict[str, type[TokenMetric]] = {
    metric.__name__: metric
    for metric in (
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
        IDSDS,
        FFidelity,
        GridPointing,
        SRG,
        SaCo,
        MPRT,
        Completeness,
    )
}
"""Name -> class, in the order of the tables, for loops and spec files; a metric that you add is tested too."""


def register() -> None:
    """Put the metrics where Quantus lists its own, each under its category and name.

    Importing `quantus_metrics` does this. Doing it twice does it once, and a name that is taken is left to
    its owner. It serves discovery only: ``quantus.evaluate`` takes instances, registered or not.
    """
    for metric in METRICS.values():
        AVAILABLE_METRICS.setdefault(metric.evaluation_category.value, {}).setdefault(metric.name, metric)


def unregister() -> None:
    """Take them out of Quantus's lists. The metrics go on working."""
    for metric in METRICS.values():
        category = metric.evaluation_category.value
        if AVAILABLE_METRICS.get(category, {}).get(metric.name) is metric:
            del AVAILABLE_METRICS[category][metric.name]
            if not AVAILABLE_METRICS[category]:
                del AVAILABLE_METRICS[category]
