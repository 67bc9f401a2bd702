"""Inputs that are no picture and no text: videos, sounds and volumes, as a model takes them and as they are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from captum_vit.errors import InputError, OptionError
from captum_vit.inputs.images import display_image
from captum_vit.models.library import host_of
from captum_vit.options import function, kind_of

Kind = Literal["video", "volume", "spectrogram", "wave"]
AXES: dict[Kind, int] = {"video": 3, "volume": 3, "spectrogram": 2, "wave": 1}
_SOUNDS = ("input_values", "input_features")  # what Hugging Face's models and processors call them
_COLOURS = (1, 3)


@dataclass(frozen=True)
class Signal:
    """One input of a model, on its device.

    Args:
        inputs: (1, T, C, H, W) or (1, C, T, H, W) for a video, (1, C, D, H, W) for a volume, (1, T, F) for a sound as
            a spectrogram, (1, S) for one as samples.
        kind: which of them it is.
        channels: the dimension of the inputs that is summed in a map of input values; None where there is none.
        seen: what is shown: (T, 3, H, W) in [0, 1], (D, H, W), (T, F) or (S,), on the CPU.
        seconds: how long it lasts, where the processor knows it.
        bands_first: whether the inputs of a spectrogram are (1, F, T).
    """

    inputs: Tensor
    kind: Kind
    channels: int | None
    seen: Tensor
    seconds: float | None = None
    bands_first: bool = False

    def one_map(self, relevance: Tensor) -> Tensor:
        """A map (1, ...) without batch and channels: (t, h, w), (d, h, w), (t, f) or (t,).

        Raises:
            OptionError: a method that gave something else.
        """
        n = AXES[self.kind]
        if self.kind == "spectrogram" and relevance.dim() == 2:
            return relevance[0].unsqueeze(1)  # of all bands
        if self.kind == "spectrogram" and relevance.dim() == 3 and self.bands_first:
            return relevance[0].mT
        if relevance.shape == self.inputs.shape and self.channels is not None:
            return relevance.sum(self.channels)[0]
        if relevance.dim() == n + 1:
            return relevance[0]
        if relevance.dim() == n + 2 and relevance.shape[1] == 1:
            return relevance[0, 0]
        wanted = f"A method that gives one map with {n} {'axis' if n == 1 else 'axes'} for a {self.kind}."
        raise OptionError(wanted, f"shape {tuple(relevance.shape)}", 'output="grid"')

    def with_bands_first(self) -> Signal:
        """Of a spectrogram (1, F, T), such as Whisper's; it is shown with time first."""
        return replace(self, seen=self.seen.mT, bands_first=True)


def read_signal(model: nn.Module, given: Any, processor: Any) -> Signal | None:
    """A video, a sound or a volume as this model's input; None for anything else.

    Args:
        model: a model of any library.
        given: a float tensor that is **taken as preprocessed**: (1, T, C, H, W), (1, C, T, H, W) or (1, C, D, H, W);
            (1, S) samples; (1, T, F) for a model of Hugging Face that reads sounds. Or what a processor takes: a list
            of frames, or frames as uint8 (T, H, W, 3) or (T, 3, H, W), or the samples of a sound, floats (S,).
        processor: a video processor or a feature extractor of Hugging Face, or what takes and gives the same.

    Raises:
        InputError: a batch of several, or a video whose channels are not known.
        OptionError: a processor that gives no such input.
    """
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], Tensor):
        return None
    if isinstance(given, Tensor) and given.is_floating_point() and given.dim() > 1:
        known = given.dim() in (2, 5) or (given.dim() == 3 and _reads_sounds(model))
        return _signal(model, given, processor) if known else None
    if processor is None:
        return None
    if _is_samples(given):
        return _sound(model, given, processor)
    if frames := _frames(given):
        found = _processed(processor, frames, ("pixel_values", "pixel_values_videos"))
        return _signal(model, found, processor) if found.dim() == 5 else None
    return None


def _reads_sounds(model: nn.Module) -> bool:
    host = host_of(model)
    return host is not None and getattr(host[1], "main_input_name", "") in _SOUNDS


def _is_samples(given: Any) -> bool:
    """Floats one after the other, or a list of them."""
    if isinstance(given, np.ndarray):
        return given.ndim == 1 and given.dtype.kind == "f"
    if isinstance(given, Tensor):
        return given.dim() == 1 and given.is_floating_point()
    return isinstance(given, list) and len(given) > 1 and all(isinstance(x, float) for x in given)


def _frames(given: Any) -> list[Any]:
    """Pictures one after the other; nothing where it is something else."""
    if isinstance(given, Tensor | np.ndarray):
        whole = given.dtype in (torch.uint8, np.uint8) and given.ndim == 4
        return [np.asarray(frame) for frame in given] if whole else []
    pictures = isinstance(given, list) and len(given) > 1 and all(isinstance(x, Image | np.ndarray) for x in given)
    return given if pictures else []


def _processed(processor: Callable[..., Any], given: Any, names: tuple[str, ...], **options: Any) -> Tensor:
    """The tensor that a processor makes."""
    found = function("processor", processor, hint="AutoProcessor.from_pretrained(...).")(
        given, return_tensors="pt", **options
    )
    if isinstance(found, Tensor):
        return found
    tensors = [found[name] for name in names if name in found]
    if not tensors or not isinstance(tensors[0], Tensor):
        raise OptionError(f"A processor that gives {' or '.join(names)}.", ", ".join(map(str, found)), "processor=...")
    return tensors[0]


def _sound(model: nn.Module, given: Any, processor: Any) -> Signal:
    samples = np.asarray(given, dtype=np.float32)
    rate = getattr(processor, "sampling_rate", None)
    rate = getattr(getattr(processor, "feature_extractor", None), "sampling_rate", rate)
    found = _processed(processor, samples, _SOUNDS, **({} if rate is None else {"sampling_rate": rate}))
    signal = _signal(model, found, processor)
    if rate is None or signal.kind != "wave":  # spectrograms are filled up to a length of their own
        return signal
    return Signal(signal.inputs, signal.kind, signal.channels, signal.seen, signal.inputs.shape[-1] / rate)


def _signal(model: nn.Module, inputs: Tensor, processor: Any) -> Signal:
    """Which kind it is, by its shape."""
    if len(inputs) != 1:
        hint = "one at a time, or a method's own attribute(batch, target)."
        raise InputError("One video, sound or volume.", f"a batch of {len(inputs)}, {kind_of(inputs)}", hint)
    home = next((p for p in model.parameters() if p.is_floating_point()), inputs)
    on_device, seen = inputs.to(home.device, home.dtype), inputs[0].detach().float().cpu()
    if inputs.dim() == 2:
        return Signal(on_device, "wave", None, seen)
    if inputs.dim() == 3:
        return Signal(on_device, "spectrogram", None, seen)
    if inputs.dim() != 5:
        raise InputError("A video, a sound or a volume.", kind_of(inputs), "(1, T, C, H, W), (1, S) or (1, T, F).")
    first, second = inputs.shape[1:3]
    if first in _COLOURS and second in _COLOURS:
        wanted = "A video or a volume in which frames and channels differ in number."
        raise InputError(wanted, kind_of(inputs), "a longer one; a method's own attribute takes it too.")
    if second in _COLOURS:
        return Signal(on_device, "video", 2, _film(model, seen, processor))
    if first == 3:
        return Signal(on_device, "video", 1, _film(model, seen.transpose(0, 1), processor))
    return Signal(on_device, "volume", 1, seen[0])


def _film(model: nn.Module, frames: Tensor, processor: Any) -> Tensor:  # shape: (T, 3, H, W), in [0, 1]
    """As the processor had them before it normalised them; stretched where it is not known."""
    if hasattr(processor, "image_mean"):
        frames = display_image(model, frames, processor)
    elif frames.min() < 0 or frames.max() > 1:
        frames = (frames - frames.min()) / (frames.max() - frames.min()).clamp_min(1e-12)
    return frames.expand(-1, 3, -1, -1)
