"""Metrics: in each file pure torch functions first, the Quantus class below them."""

from .base import TokenMetric
from .batch import Batch
from .curves import CurveMetric
from .passes import Passes
from .registration import *  # every metric; the list is there
from .registration import __all__ as _metrics

__all__ = [*_metrics, "TokenMetric", "CurveMetric", "Batch", "Passes"]
