"""What is not a number is no answer and no map."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_vit.errors import InputError

HINT = (
    "a wider precision (model.bfloat16() or model.float() for float16, else model.double()), or inputs of the size "
    "that the model was trained on; captum_vit.doctor(model) names weights that are not finite."
)


def refuse_not_finite(x: Tensor, what: str, infinite: bool = True) -> None:  # shape: (B, ...)
    """Refuse a batch some of whose samples overflowed, and name these.

    Args:
        x: a row for each sample.
        what: what it is.
        infinite: infinite values are refused too. Outputs may hold some: a class that is masked scores minus infinity.

    Raises:
        InputError: NaN or infinite values.
    """
    total = x.sum()  # finite terms, as a rule: one reduction
    if bool(torch.isfinite(total)):
        return
    bad = ~x.isfinite() if infinite else x.isnan()
    rows = bad.reshape(len(x), -1).any(1)
    if bool(rows.any()):
        got = f"NaN or infinite values in the {what} of {samples(rows)}"
        raise InputError("Inputs for which the model computes finite numbers.", got, HINT)


def samples(chosen: Tensor) -> str:  # shape: (B,) bool
    """Samples of a batch by their numbers."""
    numbers = [str(i) for i in chosen.nonzero().flatten().tolist()]
    if len(numbers) == len(chosen):
        return "the sample" if len(numbers) == 1 else f"all {len(numbers)} samples"
    listed = ", ".join(numbers[:8]) + (", ..." if len(numbers) > 8 else "")
    return f"sample {listed}" if len(numbers) == 1 else f"samples {listed}"
