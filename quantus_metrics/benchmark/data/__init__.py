"""Data sets that a benchmark can run on, by the name that a spec gives them."""

from __future__ import annotations

from quantus_metrics.benchmark.data.digits import DigitScenes
from quantus_metrics.benchmark.data.samples import Reader, Sample, Samples

READERS: dict[str, Reader] = {
    "digits": DigitScenes,
}
"""Name -> what makes the data set from the options of ``[data]``."""

__all__ = ["READERS", "DigitScenes", "Reader", "Sample", "Samples"]
