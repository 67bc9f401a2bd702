"""How near two maps must be: one table, relative to the largest value, none to be loosened to pass."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = {
    "same computation": 0.0,
    "other batch": 1e-5,  # matrix products of another size round differently in float32
    "other order of sums": 1e-5,
    "float64": 1e-12,
    "float64, divided by sums near zero": 1e-10,  # relevance shows ten thousand times what is rounded away
    "float32 and float64": 1e-4,
}
BF16_CORRELATION = 0.9


def assert_close(found: Tensor, wanted: Tensor, why: str) -> None:
    """The same shape and precision, and no value farther apart than the table allows."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    error = (found - wanted).abs().max() / wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny)
    assert error <= TOLERANCE[why], f"{why}: off by {error:.2e} of the largest value"


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten().double(), b.flatten().double()]))[0, 1])
