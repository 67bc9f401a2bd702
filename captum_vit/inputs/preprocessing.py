"""The readers of each library: from a picture to a model's input, by the model's own configuration."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from captum_vit.errors import OptionError, UnsupportedModelError
from captum_vit.inputs.rgb import picture_of
from captum_vit.models.library import host_of, is_text_model
from captum_vit.options import function

Channels = tuple[float, ...]
IMAGENET: tuple[Channels, Channels] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RAW: tuple[Channels, Channels] = (0.0,) * 3, (1.0,) * 3  # pixels that are not normalised


@dataclass(frozen=True)
class Reader:
    """One model's way from a picture to its input.

    Args:
        transform: from an RGB picture (PIL) to (C, H, W): resize, crop, scale, normalise.
        mean: of each channel, subtracted from pixels in [0, 1]; one number for all, or one each.
        std: of each channel, divided by.
    """

    transform: Callable[[Image.Image], Any]
    mean: Channels
    std: Channels

    def prepare(self, picture: Any) -> Tensor:  # shape: (C, H, W)
        """A picture in any form that :func:`~captum_vit.inputs.rgb.picture_of` takes, as the model's input.

        Raises:
            InputError: not a picture.
            OptionError: a processor that gives something else than one tensor of floats.
        """
        found = self.transform(picture_of(picture))
        if isinstance(found, Tensor) and found.dim() == 3 and found.is_floating_point():
            return found
        got = f"shape {tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        hint = "torchvision.transforms.ToTensor() after the steps that resize and crop."
        raise OptionError("A processor that makes one float tensor (C, H, W) of a picture.", got, hint)


def reader_of(model: nn.Module, processor: Any = None) -> Reader:
    """How this model wants its pictures: see :func:`~captum_vit.inputs.images.image_tensor`."""
    if processor is not None:
        function("processor", processor, hint="AutoImageProcessor.from_pretrained(...), or timm's transform.")
        processor = getattr(processor, "image_processor", processor)  # of a processor of pictures and texts
        processor = getattr(processor, "val_transforms", processor)  # timm's, inside Hugging Face's
        return _processor(processor) if hasattr(processor, "image_mean") else _transform(processor)
    host = host_of(model)
    if host is None or is_text_model(model):
        raise UnsupportedModelError(
            "A model whose configuration defines its preprocessing (timm, Hugging Face, torchvision, open_clip).",
            type(model).__name__,
            "processor=..., or a float tensor that is already preprocessed.",
        )
    family, module = host
    return _READERS[family](module)


def _timm(model: Any, pretrained_cfg: dict[str, Any] | None = None) -> Reader:
    from timm.data import create_transform, resolve_model_data_config

    size = getattr(getattr(model, "patch_embed", None), "img_size", None)  # what it was built for, if it keeps that
    config = resolve_model_data_config(model, {"input_size": (3, *size)} if size else None, pretrained_cfg)
    return _transform(create_transform(**config, is_training=False))


def _torchvision(model: Any) -> Reader:
    """The weights are not remembered by the model: ImageNet's usual transform at the model's size."""
    from torchvision.models import ViT_B_16_Weights

    size = getattr(model, "image_size", 224)
    preset = ViT_B_16_Weights.DEFAULT.transforms
    return _transform(preset(crop_size=size, resize_size=round(size * 256 / 224)))


def _open_clip(model: Any) -> Reader:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = getattr(model.visual, "preprocess_cfg", None)
    return _transform(image_transform_v2(PreprocessCfg(**(config or {})), is_train=False))


def _hugging_face(model: Any) -> Reader:
    """The processor stored beside the model, or else what its family takes; for a timm model inside, timm's."""
    if model.config.model_type == "timm_wrapper":
        return _timm(model.timm_model, getattr(model.config, "pretrained_cfg", None))
    return reader_of(model, stored("AutoImageProcessor", model) or _family_processor(model))


def stored(auto: str, model: nn.Module) -> Any:
    """What was saved beside the model, if it lies on this machine; None if it does not."""
    import transformers

    host = host_of(model)
    name = host[1].config._name_or_path if host is not None and host[0] == "transformers" else ""
    if not name:
        return None
    try:
        return getattr(transformers, auto).from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:  # not stored, or stored without a type
        reason = (str(error) or type(error).__name__).splitlines()[0]
        warnings.warn(f"No {auto[4:]} of {name!r} is on this machine ({reason}).", stacklevel=2)
        return None


def _family_processor(model: Any) -> Any:
    """The family's processor at the model's size.

    DeiT and DINO checkpoints were trained with ImageNet's mean, which their processors do not default to.
    """
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    config = model.config
    vision = getattr(config, "vision_config", config)
    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(config.model_type) or {"torchvision": "BitImageProcessor"}
    kind = getattr(transformers, names.get("torchvision") or names["pil"])
    height, width = _pair(getattr(vision, "image_size", 224))
    size: dict[str, Any] = {"size": {"height": height, "width": width}}
    if getattr(kind, "do_center_crop", False):
        size = {"size": {"shortest_edge": max(height, width)}, "crop_size": size["size"]}
    imagenet = config.model_type.startswith(("deit", "dinov2", "dinov3"))
    statistics = dict(zip(("image_mean", "image_std"), IMAGENET, strict=True)) if imagenet else {}
    return kind(**size, **statistics)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _processor(processor: Any) -> Reader:
    """A Hugging Face image processor."""
    normalises = getattr(processor, "do_normalize", True)
    mean, std = (processor.image_mean, processor.image_std) if normalises else RAW
    prepare = lambda picture: processor(images=picture, return_tensors="pt")["pixel_values"][0]  # noqa: E731
    return Reader(prepare, _floats(mean), _floats(std))


def _transform(transform: Any) -> Reader:
    """A function of a PIL image; mean and deviation are those of the normalisation in it, if there is one."""
    found = [step for step in _steps(transform) if hasattr(step, "mean") and hasattr(step, "std")]
    mean, std = (found[-1].mean, found[-1].std) if found else RAW
    return Reader(transform, _floats(mean), _floats(std))


def _steps(transform: Any) -> Iterator[Any]:
    """A transform and what it consists of: torchvision's ``Compose``, old or new, or ``nn.Sequential``."""
    yield transform
    inner = transform if isinstance(transform, nn.Sequential) else getattr(transform, "transforms", ())
    for step in inner:
        yield from _steps(step)


def _floats(values: Any) -> Channels:
    """One number for all channels, or one for each: of a number, a sequence, an array or a tensor."""
    numbers: list[float] = torch.as_tensor(values, dtype=torch.float64).flatten().tolist()
    return tuple(numbers)


_READERS: dict[str, Callable[[Any], Reader]] = {
    "timm": _timm,
    "transformers": _hugging_face,
    "torchvision": _torchvision,
    "open_clip": _open_clip,
}
