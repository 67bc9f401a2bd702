"""Metrics: in each file pure torch functions first, the Quantus class below them."""

from .aopc import AOPC
from .base import TokenMetric
from .batch import Batch
from .box_sensitivity import BoxSensitivity
from .class_discrimination import ClassDiscrimination
from .compactness import Compactness
from .curves import CurveMetric
from .deletion import Deletion, Insertion
from .fidelity import Fidelity
from .grid_pointing import GridPointing
from .log_odds import LogOdds
from .perturbation_accuracy import PerturbationAccuracy
from .registration import METRICS, register, unregister
from .segmentation import Segmentation

__all__ = [
    "Fidelity", "BoxSensitivity", "ClassDiscrimination", "Compactness",
    "PerturbationAccuracy", "AOPC", "LogOdds",
    "Deletion", "Insertion",
    "Segmentation", "GridPointing",
    "TokenMetric", "CurveMetric", "Batch",
    "METRICS", "register", "unregister",
]  # fmt: skip
