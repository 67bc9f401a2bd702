"""Pictures as a model's input, and a model's input as a picture, by the model's own configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from captum_vit.errors import InputError
from captum_vit.inputs.preprocessing import Channels, reader_of
from captum_vit.models.library import host_of, is_text_model
from captum_vit.options import kind_of


def image_tensor(
    model: nn.Module, image: Any, processor: Any = None
) -> Tensor:  # shape: (1, 3, H, W), on the model's device and of its dtype
    """A picture as this model's input.

    Args:
        model: as it was loaded; wrappers around it are looked through.
        image: a PIL image of any mode, an array (H, W) or (H, W, C) of uint8, uint16 or bool, or a uint8 tensor
            (C, H, W), which are made RGB (transparency on white) and preprocessed; or a float tensor (3, H, W) or
            (B, 3, H, W), which is **taken as preprocessed** and only moved to the model.
        processor: a Hugging Face image processor, or any function of a PIL image that gives (3, H, W); the
            model's own by default: timm's ``pretrained_cfg``, the processor stored beside a Hugging Face
            model or, where there is none, its family's defaults, torchvision's for ImageNet, open_clip's.

    Raises:
        InputError: not a picture, or one that is more than 100 times as long as wide.
        OptionError: a processor that does not give one float tensor (3, H, W).
        UnsupportedModelError: the model holds no configuration of its pictures.
    """
    if isinstance(image, Tensor) and image.is_floating_point():
        inputs = image if image.dim() == 4 else image[None]
        if inputs.dim() != 4 or not len(inputs):
            wanted, got = "A picture (3, H, W) or a batch (B, 3, H, W).", f"shape {tuple(image.shape)}"
            raise InputError(wanted, got, "image.permute(2, 0, 1) where channels are last.")
    elif isinstance(image, Image | np.ndarray) or (isinstance(image, Tensor) and image.dtype == torch.uint8):
        inputs = reader_of(model, processor).prepare(image)[None]
    else:
        raise InputError(
            "A PIL image, an array (H, W, 3) of pixels, or a float tensor that is preprocessed.",
            kind_of(image),
            "PIL.Image.open(path) for a file; .to(torch.uint8) for whole numbers from 0 to 255.",
        )
    home = next((p for p in model.parameters() if p.is_floating_point()), inputs)
    return inputs.to(home.device, home.dtype)


def display_image(
    model: nn.Module,
    inputs: Tensor,  # shape: (B, 3, H, W)
    processor: Any = None,
) -> Tensor:  # shape: (B, 3, H, W), in [0, 1], on the CPU
    """What the model saw, resized and cropped as it saw it, so that maps lie exactly over it.

    Where a model's normalisation is unknown, values in [0, 1] are taken as they are, others are stretched. Of more
    than three channels the first three are shown, of two the first.
    """
    pixels, known = inputs.detach().float().cpu(), mean_std(model, processor)
    channels = pixels.shape[1]
    if channels not in (1, 3):
        pixels = pixels[:, : 3 if channels > 3 else 1]
    if known is not None and all(len(values) in (1, channels) for values in known) and channels in (1, 3):
        mean, std = (torch.tensor(values)[:, None, None] for values in known)
        return (pixels * std + mean).clamp(0, 1)
    low, high = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
    if low.min() >= 0 and high.max() <= 1:
        return pixels
    return (pixels - low) / (high - low).clamp_min(1e-12)


def mean_std(model: nn.Module, processor: Any = None) -> tuple[Channels, Channels] | None:
    """Mean and standard deviation of each channel, of pixels in [0, 1]; None where the model holds none."""
    if processor is None and (host_of(model) is None or is_text_model(model)):
        return None
    reader = reader_of(model, processor)
    return reader.mean, reader.std
