"""Baselines as Captum takes them, in the shape of the inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError
from captum_vit.trace.run.state import checked_inputs


def filled_baselines(
    baselines: Any, inputs: tuple[Tensor, ...], model: nn.Module, otherwise: str
) -> tuple[Tensor, ...]:
    """A baseline for each input: a number, a tensor of one sample or of the whole batch, or a tuple of these.

    Args:
        baselines: as the caller gave them.
        inputs: checked inputs.
        model: whose inputs they are.
        otherwise: what ``baselines=None`` stands for, for messages.

    Raises:
        InputError: they do not fit the inputs.
    """
    hint = f"baselines=None for {otherwise}."
    given = baselines if isinstance(baselines, tuple) else (baselines,)
    if len(given) != len(inputs):
        raise InputError(f"A baseline for each of {len(inputs)} inputs.", f"{len(given)}", hint)
    return checked_inputs(tuple(_filled(b, x, hint) for b, x in zip(given, inputs, strict=True)), model)


def _filled(baseline: Any, x: Tensor, hint: str) -> Tensor:
    if isinstance(baseline, int | float):
        return torch.full_like(x, baseline)
    if isinstance(baseline, Tensor) and baseline.shape[1:] == x.shape[1:] and len(baseline) in (1, len(x)):
        return baseline.to(x.device).expand_as(x)
    got = tuple(baseline.shape) if isinstance(baseline, Tensor) else repr(baseline)
    wanted = f"A baseline of the inputs' shape {tuple(x.shape)}, of one sample, or a number."
    raise InputError(wanted, str(got), hint)
