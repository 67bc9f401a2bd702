"""What a metric is given: Quantus's arrays, checked, and the tensors made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from torch import Tensor, nn

from captum_vit.errors import InputError, ModelStateError
from quantus_metrics.explain import placement, to_tensor, wrap


@dataclass(frozen=True)
class Batch:
    """Some of the samples, as tensors on the model's device.

    Args:
        model: answers images (n, C, H, W) with float scores (n, n_classes): logits, or probabilities if the
            caller asked for a softmax.
        inputs: (B, C, H, W).
        target: (B,).
        relevance: (B, 1, h, w), channels summed; pixels, or patches.
        masks: (B, 1, H, W), the caller's `s_batch`, if any.
        custom: the caller's `custom_batch`, these samples only.
    """

    model: Callable[[Tensor], Tensor]
    inputs: Tensor
    target: Tensor
    relevance: Tensor
    masks: Tensor | None = None
    custom: Any = None


@dataclass(frozen=True)
class Samples:
    """The arrays of a call, under Quantus's names; each that is given has one entry per sample.

    Checked as a whole, before the model runs: a bad last map is found at once, not after an hour.

    Raises:
        InputError: no samples, no classes, entries that are not one per sample, or maps that are no pictures,
            not finite or constant.
    """

    x_batch: np.ndarray  # shape: (N, C, H, W)
    y_batch: np.ndarray  # shape: (N,)
    a_batch: np.ndarray | None = None  # shape: (N, h, w) or (N, C, h, w)
    s_batch: np.ndarray | None = None  # shape: (N, 1, H, W)
    custom_batch: Any = None

    def __post_init__(self) -> None:
        if not len(self.x_batch):
            raise InputError("At least one sample.", f"x_batch of shape {np.shape(self.x_batch)}")
        if self.y_batch is None:
            raise InputError("One class per sample: y_batch.", "None")
        for name, column in self._columns().items():
            if column is not None and len(column) != len(self):
                raise InputError(f"One entry of {name} per sample.", f"{len(column)} entries for {len(self)} samples")
        if self.a_batch is not None:
            _check_maps(self.maps())

    def __len__(self) -> int:
        return len(self.x_batch)

    def __getitem__(self, rows: slice) -> Samples:
        columns: dict[str, Any] = {k: v if v is None else v[rows] for k, v in self._columns().items()}
        return Samples(**columns)

    def maps(self) -> np.ndarray:  # shape: (N, 1, h, w)
        """The relevance, channels summed."""
        relevance = np.asarray(self.a_batch)
        if relevance.ndim not in (3, 4) or not relevance.size:
            raise InputError("Maps (N, 1, h, w) or (N, h, w).", f"maps of shape {relevance.shape}")
        return relevance[:, None] if relevance.ndim == 3 else relevance.sum(1, keepdims=True)

    def tensors(
        self,
        model: nn.Module,
        relevance: np.ndarray,  # shape: (N, 1, h, w)
        softmax: bool = False,
        predict_kwargs: dict[str, Any] | None = None,
    ) -> Batch:
        """The same, on the model's device, with the model as a function of images alone."""
        device, _ = placement(model)
        inputs = to_tensor(self.x_batch, device)
        return Batch(
            model=answers(model, softmax, predict_kwargs or {}),
            inputs=inputs if inputs.is_floating_point() else inputs.float(),
            target=to_tensor(self.y_batch, device).long(),
            relevance=to_tensor(relevance, device),
            masks=None if self.s_batch is None else to_tensor(self.s_batch, device),
            custom=self.custom_batch,
        )

    def _columns(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _check_maps(
    maps: np.ndarray,  # shape: (N, 1, h, w)
) -> None:
    rows = maps.reshape(len(maps), -1)
    for good, wanted in (
        (np.isfinite(rows).all(1), "Finite relevance."),
        (rows.min(1) < rows.max(1), "Relevance that varies within each image: a constant map ranks nothing."),
    ):
        if not good.all():
            bad = np.flatnonzero(~good)[:10].tolist()
            raise InputError(wanted, f"otherwise in sample(s) {bad} of {len(maps)}", "another method or target.")


def answers(
    model: nn.Module, softmax: bool, predict_kwargs: dict[str, Any]
) -> Callable[[Tensor], Tensor]:  # images (n, C, H, W) to scores (n, n_classes)
    """The model as a function of images alone; only in evaluation mode is it one."""
    if model.training:
        raise ModelStateError("A model in evaluation mode.", "one in training mode", "model.eval().")
    wrapped = wrap(model)

    def answer(inputs: Tensor) -> Tensor:
        outputs = wrapped(inputs, **predict_kwargs)
        return outputs.softmax(-1) if softmax else outputs

    return answer


def channels_first(
    x_batch: np.ndarray,  # shape: (N, C, H, W) or (N, H, W, C)
    channel_first: bool | None,
) -> np.ndarray:  # shape: (N, C, H, W)
    """Unless told, channels are last only where the last axis is the shortest of the three."""
    if channel_first is None:
        channel_first = x_batch.ndim != 4 or x_batch.shape[3] >= min(x_batch.shape[1:3])
    return x_batch if channel_first else np.moveaxis(x_batch, -1, 1)
