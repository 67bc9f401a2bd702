"""Padding that no mask hides, found by the model's own padding token."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import PaddingWarning
from captum_vit.models.library import text_config

_FRAME = ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id")


def padding_of(model: nn.Module, ids: Tensor) -> Tensor | None:  # shape: (B, T), bool
    """Where rows of ids begin or end in the model's padding token; None if no row does.

    Where that token also ends texts (as in GPT-2), a single one is an end and no padding. SigLIP was trained on texts
    filled up without a mask, so padding is text to it.
    """
    config = text_config(model)
    pad = getattr(config, "pad_token_id", None)
    if pad is None or config.model_type.startswith("siglip") or not bool((ids[:, [0, -1]] == pad).any()):
        return None
    is_pad = (ids == pad).long()
    runs = [is_pad.cumprod(1), is_pad.flip(1).cumprod(1).flip(1)]
    if pad in [getattr(config, name, None) for name in _FRAME]:
        runs = [run * (run.sum(1, keepdim=True) > 1) for run in runs]
    found = torch.stack(runs).bool().any(0)
    return found if bool(found.any()) else None


def warn_if_padded(
    model: nn.Module,
    inputs: Any,
    relevance: Tensor,  # shape: (B, T, ...)
    stacklevel: int,
) -> None:
    """Warn if padding has relevance. Where the model itself hides its padding, there is none."""
    ids = inputs[0] if isinstance(inputs, tuple) else inputs
    if ids.dim() != 2 or ids.is_floating_point() or ids.shape != relevance.shape[:2]:
        return
    padding = padding_of(model, ids)
    if padding is None or not bool(relevance[padding].any()):
        return
    rows = padding.any(1).nonzero().flatten().tolist()
    listed = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    warnings.warn(
        f"Rows {listed} begin or end in the model's padding token, and no attention mask came with them: padding is "
        "read as text and has relevance. Pass additional_forward_args=(attention_mask,).",
        PaddingWarning,
        stacklevel=stacklevel + 1,
    )
