"""Chefer's reading of pictures: the whole of each, squashed to what the model takes."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import nn
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from captum_vit.inputs.preprocessing import reader_of
from quantus_metrics.cells import Size


def squash(model: nn.Module) -> Compose:
    """From a picture to the model's input: resized bilinearly to the model's height and width, with its normalisation.

    Nothing is cropped, and the aspect ratio is not kept.
    """
    reader = reader_of(model)
    height, width = reader.prepare(Image.new("RGB", (64, 64))).shape[-2:]
    return Compose([Resize((height, width)), ToTensor(), Normalize(reader.mean, reader.std)])


def squashed_mask(mask: Image.Image, size: Size) -> np.ndarray:  # shape: (1, H, W), bool
    """The mask at that height and width, each pixel that of the nearest one."""
    return np.asarray(mask.convert("L").resize(size[::-1], Image.Resampling.NEAREST))[None] > 127
