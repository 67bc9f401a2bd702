"""Whether a model gives the same scores again: compared where it runs again anyway."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import CaptumVitError, UnrepeatableWarning
from captum_vit.models.modules import unwrapped
from captum_vit.models.output import scores_of
from captum_vit.sites.site import ThisThreadOnly
from captum_vit.trace.run.found import Ends, as_found, uninterrupted

LARGE = 0.03


@uninterrupted
def same_again(
    model: nn.Module,
    inputs: Tensor,
    scores: Tensor,  # shape: (B, K), of a pass that was made before
) -> Ends:
    """Inside, the first pass is compared with an earlier one, if it is over the same inputs.

    Warns:
        UnrepeatableWarning: its scores differ by far more than rounding, by 3 % of the largest one or more (by the
            root of eps in half precision).
    """
    passes = 0

    def see(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal passes
        passes += 1
        if passes == 1 and args and isinstance(args[0], Tensor) and args[0].shape == inputs.shape:
            _compare(args[0], inputs, output, scores, type(module).__name__)

    module = unwrapped(model)
    with as_found([module]):
        module.register_forward_hook(ThisThreadOnly(see))
        yield


def _compare(given: Tensor, inputs: Tensor, output: Any, scores: Tensor, name: str) -> None:
    try:
        again = scores_of(output).detach()
    except CaptumVitError:
        return
    if again.shape != scores.shape or not torch.equal(given.detach(), inputs.to(given)):
        return
    least = max(LARGE, torch.finfo(scores.dtype).eps ** 0.5)
    if (again - scores).abs().max() > least * scores.abs().max():
        warnings.warn(
            f"{name} gives other scores for the same input in a second pass. Its maps cannot be repeated either, "
            "and the score that is shown is not the one that is explained. See captum_vit.doctor(model, inputs).",
            UnrepeatableWarning,
            stacklevel=2,
        )
