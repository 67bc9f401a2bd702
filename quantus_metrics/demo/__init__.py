"""The demonstration: data with known answers, explained by every method, and marked."""

from quantus_metrics.demo.digits import run

__all__ = ["run"]
