"""How a part of the input goes away."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import InputError, OptionError
from captum_vit.inputs.images import mean_std
from captum_vit.models.per_sample import of_samples
from captum_vit.options import number, shown
from captum_vit.tokens import Box
from quantus_metrics.cells import over_pixels

Model = Callable[..., Any]
Answer = Callable[[Tensor, Tensor], Any]


class Remover(ABC):
    """Takes parts of inputs away and runs the model on what is left.

    An author owes `bind`. What costs the same for every step, a blurred copy say, is done there once.

    ``of_tokens`` means that patches inside the model are removed, never pixels.
    """

    of_tokens: bool = False

    @abstractmethod
    def bind(
        self,
        model: Model,
        inputs: Tensor,  # shape: (B, C, H, W), or (B, T) token ids
        args: tuple[Any, ...] = (),
    ) -> Answer:
        """``answer(rows, gone)``: the model's output for ``inputs[rows]`` without what is gone.

        ``rows`` ``(n,)`` may name an input more than once; ``gone`` ``(n, h, w)`` is True where a patch, or
        a pixel, is missing, or ``(n, T)`` where a word is. One forward pass of ``n`` inputs per call. Where patches do
        not tile the image, `curves` hands pixels to removers of pixels.

        ``args`` are further arguments of the model, such as an attention mask; those as long as ``inputs``
        belong to them one by one.
        """


def bind_over(box: Box | None, remover: Remover, model: Model, inputs: Tensor, args: tuple[Any, ...] = ()) -> Answer:
    """`Remover.bind` for cells that divide a rectangle of the image; pixels outside never go. A text has None."""
    answer, size = remover.bind(model, inputs, args), (inputs.shape[-2], inputs.shape[-1])
    if remover.of_tokens or box is None or box == (0, 0, *size):
        return answer
    return lambda rows, gone: answer(rows, over_pixels(gone, box, size))


class PixelRemover(Remover):
    """Replaces what is gone by the pixels of a background. An author owes `background`."""

    @abstractmethod
    def background(
        self,
        inputs: Tensor,  # shape: (B, C, H, W)
    ) -> Tensor:  # shape: (B, C, H, W)
        """What an image looks like where nothing is left of it."""

    def bind(self, model: Model, inputs: Tensor, args: tuple[Any, ...] = ()) -> Answer:
        if inputs.dim() != 4:
            got = f"inputs of shape {tuple(inputs.shape)}"
            raise InputError("Images (B, C, H, W).", got, "DropTokens or ReplaceTokens for texts.")
        background = self.background(inputs)

        def answer(rows: Tensor, gone: Tensor) -> Any:
            left = torch.where(_per_pixel(gone, inputs), background[rows], inputs[rows])
            return model(left, *of_samples(args, len(inputs), rows))

        return answer


class Blur(PixelRemover):
    """A Gaussian blur: local detail goes, colours stay. The CDAM paper's choice.

    It makes no difference whether raw or normalised pixels are blurred, since the blur is linear and the
    border is reflected.

    Args:
        sigma: in pixels; None is height / 16, the paper's 14 at 224 pixels.
    """

    def __init__(self, sigma: float | None = None) -> None:
        self.sigma = None if sigma is None else number("sigma", sigma, above=0, hint="sigma=None for height / 16.")

    def background(self, inputs: Tensor) -> Tensor:
        return gaussian_blur(inputs, self.sigma or inputs.shape[-2] / 16)

    def __repr__(self) -> str:
        return f"Blur(sigma={self.sigma})"


class Fill(PixelRemover):
    """One constant colour.

    Args:
        value: the colour, one number or one per channel, in the units of the inputs; or in raw units, given
            the `mean` and `std` that normalised the inputs. The default 0 is the mean colour of normalised
            inputs.
    """

    def __init__(
        self,
        value: float | Sequence[float] = 0.0,
        *,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> None:
        self.value, self.mean, self.std = value, mean, std
        for name, given in (("value", value), ("mean", mean), ("std", std)):
            _check_colour(name, given)

    def background(self, inputs: Tensor) -> Tensor:
        channels = inputs.shape[1]
        given = {name: torch.as_tensor(getattr(self, name)).to(inputs) for name in ("value", "mean", "std")}
        for name, numbers in given.items():
            if numbers.numel() not in (1, channels):
                wanted = f"`{name}`: one number, or one for each of {channels} channels."
                raise InputError(wanted, f"{numbers.numel()} numbers", f"{name}=({', '.join(['0.5'] * channels)}).")
        colour = torch.atleast_1d((given["value"] - given["mean"]) / given["std"])
        return colour[:, None, None].expand_as(inputs)

    def __repr__(self) -> str:
        return f"Fill({self.value}, mean={self.mean}, std={self.std})"


class Mean(PixelRemover):
    """The mean colour of the image itself. (The mean colour of a data set is what `Fill` gives by default.)

    The same in raw and in normalised pixels.
    """

    def background(self, inputs: Tensor) -> Tensor:
        return inputs.mean((2, 3), keepdim=True).expand_as(inputs)

    def __repr__(self) -> str:
        return "Mean()"


class Black(Remover):
    """Black as a camera has it: 0 in raw pixels, seen through the model's normalisation. TransAttr's choice.

    Args:
        mean: what was subtracted from raw pixels in [0, 1], one number or one per channel; None reads it, and
            `std`, from the configuration of the model (timm, Hugging Face, torchvision, open_clip).
        std: what they were divided by; given with `mean`, or not at all.

    Raises:
        OptionError: only one of the two; or, when it is bound, none, and a model that does not hold them.
        InputError: when it is bound, numbers for more or fewer channels than the images have.
    """

    def __init__(self, mean: float | Sequence[float] | None = None, std: float | Sequence[float] | None = None) -> None:
        if (mean is None) != (std is None):
            hint = "Black(), which reads both from the model's configuration."
            raise OptionError("Both `mean` and `std`, or neither.", f"mean={mean}, std={std}", hint)
        self.mean, self.std = mean, std
        if mean is not None:
            _check_colour("mean", mean)
            _check_colour("std", std)

    def bind(self, model: Model, inputs: Tensor, args: tuple[Any, ...] = ()) -> Answer:
        return self.fill(model).bind(model, inputs, args)

    def fill(self, model: Model) -> Fill:
        """What black is for this model."""
        if self.mean is not None and self.std is not None:
            return Fill(0.0, mean=self.mean, std=self.std)
        known = mean_std(model) if isinstance(model, nn.Module) else None
        if known is None:
            raise OptionError(
                "`mean` and `std`, since black is 0 before the normalisation.",
                f"neither, and {type(model).__name__} has no configuration of them",
                "Black(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)) for ImageNet's usual ones.",
            )
        return Fill(0.0, mean=known[0], std=known[1])

    def __repr__(self) -> str:
        return f"Black(mean={self.mean}, std={self.std})"


def _check_colour(name: str, given: Any) -> None:
    """A finite number, or one per channel; a deviation is above 0."""
    hint = f"{name}=0.5, or one number for each channel."
    for each in given if isinstance(given, tuple | list) else [given]:
        number(name, each, **({"above": 0.0} if name == "std" else {}), hint=hint)
    if isinstance(given, tuple | list) and not given:
        raise OptionError(f"`{name}` must be a number, or one for each channel.", shown(given), hint)


def check_remover(remover: Any) -> None:
    """Refuse what takes nothing away; None is a metric's own choice."""
    if remover is not None and not isinstance(remover, Remover):
        raise OptionError("A remover, an instance of its class.", shown(remover), "remover=Blur(), or None.")


def gaussian_blur(
    images: Tensor,  # shape: (B, C, H, W)
    sigma: float,
) -> Tensor:  # shape: (B, C, H, W)
    r"""Each channel blurred by a Gaussian of radius ⌈3σ⌉, the border reflected.

    .. math:: G_H\,x\,G_W^\top

    with one matrix for the rows and one for the columns. It is what torchvision's ``gaussian_blur`` computes
    with a kernel of ``2⌈3σ⌉ + 1``, without those 85 x 85 products per pixel at 224 pixels.
    """
    wide = images if images.dtype == torch.float64 else images.float()
    G_H, G_W = (_blur_matrix(n, sigma, wide.dtype).to(wide.device) for n in images.shape[-2:])
    return (G_H @ wide @ G_W.T).to(images.dtype)


def _blur_matrix(
    n: int,
    sigma: float,
    dtype: torch.dtype,
) -> Tensor:  # shape: (n, n), rows sum to 1
    """What a blur along a line of n pixels does to each pixel: the blurred identity."""
    radius = math.ceil(3 * sigma)
    if radius >= n:
        raise InputError(
            "Images larger than the blur's radius, 3 sigma.",
            f"{n} pixels, {radius} radius",
            "a smaller sigma.",
        )
    x = torch.arange(-radius, radius + 1, dtype=dtype)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    lines = F.pad(torch.eye(n, dtype=dtype).unsqueeze(1), (radius, radius), mode="reflect")
    return F.conv1d(lines, (kernel / kernel.sum())[None, None]).squeeze(1).T


def _per_pixel(
    gone: Tensor,  # shape: (n, h, w)
    inputs: Tensor,  # shape: (B, C, H, W)
) -> Tensor:  # shape: (n, 1, H, W)
    height, width = inputs.shape[-2] // gone.shape[-2], inputs.shape[-1] // gone.shape[-1]
    return gone.repeat_interleave(height, 1).repeat_interleave(width, 2).unsqueeze(1)
