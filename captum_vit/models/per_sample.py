"""What of a call belongs to each sample of its batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def is_of_each_sample(x: Any, batch: int) -> bool:
    """Whether an argument holds one value for each sample, by Captum's rule: a tensor as long as the batch."""
    return isinstance(x, Tensor) and x.dim() > 0 and len(x) == batch
