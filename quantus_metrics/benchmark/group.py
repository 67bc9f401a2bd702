"""Some samples as one model reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from captum_vit.inputs.images import image_tensor
from captum_vit.inputs.preprocessing import reader_of
from quantus_metrics.benchmark.data import Sample, Samples
from quantus_metrics.benchmark.squash import squash, squashed_mask


@dataclass(frozen=True)
class Group:
    """Samples that are worked on together."""

    names: tuple[str, ...]
    inputs: Tensor  # shape: (n, 3, H, W), on the model's device and of its dtype
    labels: np.ndarray  # shape: (n,)
    wrong: np.ndarray | None = None  # shape: (n,)
    masks: np.ndarray | None = None  # shape: (n, 1, H, W), bool

    def __len__(self) -> int:
        return len(self.names)

    def singles(self) -> Iterator[Group]:
        """Each sample by itself."""
        for i in range(len(self)):
            row = slice(i, i + 1)
            wrong = None if self.wrong is None else self.wrong[row]
            masks = None if self.masks is None else self.masks[row]
            yield Group(self.names[row], self.inputs[row], self.labels[row], wrong, masks)


def read_group(
    data: Samples, indices: Sequence[int], model: nn.Module, resize: str = "model"
) -> tuple[Group | None, dict[str, str]]:
    """The samples at these places, and why some could not be read, by name.

    `resize` is the spec's: "model" as its configuration has it, or "squash".
    """
    processor = squash(model) if resize == "squash" else None
    samples: list[Sample] = []
    inputs: list[Tensor] = []
    failed: dict[str, str] = {}
    for index in indices:
        try:
            sample = data[index]
            inputs.append(image_tensor(model, sample.picture, processor))
            samples.append(sample)
        except Exception as error:  # a picture that cannot be read must not stop the other fifty thousand
            failed[data.name(index)] = reason(error)
    if not samples:
        return None, failed
    found = torch.cat(inputs)
    size = (found.shape[-2], found.shape[-1])
    seen = partial(_as_read, model=model) if processor is None else partial(squashed_mask, size=size)
    return _group(samples, found, seen), failed


def reason(error: Exception) -> str:
    """An error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _group(samples: list[Sample], inputs: Tensor, seen: Callable[[Image.Image], np.ndarray]) -> Group:
    wrong = [sample.wrong for sample in samples]
    masks = [sample.mask for sample in samples]
    return Group(
        tuple(sample.name for sample in samples),
        inputs,
        np.array([sample.label for sample in samples]),
        None if None in wrong else np.array(wrong),
        None if None in masks else np.stack([seen(mask) for mask in masks if mask is not None]),
    )


def _as_read(mask: Image.Image, model: nn.Module) -> np.ndarray:  # shape: (1, H, W), bool
    """The mask resized and cropped as the model's own transform does it to a picture; half covered counts."""
    reader = reader_of(model)
    seen = reader.prepare(mask.convert("L").convert("RGB"))[:1].float()
    return (seen * reader.std[0] + reader.mean[0] > 0.5).numpy()
