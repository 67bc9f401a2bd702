"""Metrics: in each file pure torch functions first, the Quantus class below them."""

from .base import TokenMetric
from .batch import Batch
from .fidelity import Fidelity
from .registration import METRICS, register, unregister

__all__ = [
    "Fidelity",
    "TokenMetric", "Batch",
    "METRICS", "register", "unregister",
]  # fmt: skip
