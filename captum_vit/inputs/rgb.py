"""Pictures of every mode and depth as 8-bit RGB, which is what models were trained on."""

from __future__ import annotations

from os import PathLike
from os.path import isfile
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.options import shown

ELONGATED = 100
"""The longer side over the shorter one, at most: models enlarge the short side, and the long one with it."""

_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose 16-bit greys PIL may open in mode I


def open_picture(path: str | PathLike[str]) -> Image.Image:
    """A picture file as RGB, as ``rgb`` makes it. Of an animation or a file of several pages, the first one.

    Raises:
        InputError: no such file, or not a picture that can be read.
    """
    if not isfile(path):
        got = f"{str(path)!r}, which is no file"
        raise InputError("A picture file, or a text for a text model.", got, "the path from here, or an absolute one.")
    try:
        with Image.open(path) as image:
            return rgb(image)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            "A picture that PIL can read.",
            f"{str(path)!r} ({error})",
            "opening it in a viewer: it may be cut short.",
        ) from error


def rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode as 8-bit RGB, turned upright as its camera noted.

    What is transparent is composed on white, so that no hidden pixel reaches the model. Of 16-bit grey the upper
    byte is kept, as PIL itself reads 16-bit colour; whole numbers of 32 bits and floats have no scale of their own.

    Raises:
        InputError: mode ``I`` (other than of a 16-bit file) or ``F``, or a mode that PIL cannot convert.
    """
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS)
    image = ImageOps.exif_transpose(image)
    if sixteen:
        image = _upper_byte(image)
    if image.mode in ("I", "F"):
        raise InputError(
            "A picture with a known scale: 8 or 16 bits for each channel.",
            f"mode {image.mode!r}, whose values may have any range",
            'PIL.Image.fromarray(array.astype("uint8")), with the values brought to 0 to 255.',
        )
    try:
        if not image.has_transparency_data:
            return image.convert("RGB")
        image = image.convert("LA") if image.mode == "La" else image
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image.convert("RGBA"))
        return ground.convert("RGB")
    except ValueError as error:
        got = f"mode {image.mode!r} ({error})"
        raise InputError("A picture that PIL can convert to RGB.", got, "a PNG or JPEG of it.") from error


def _upper_byte(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey; a grey that the file declares transparent becomes white."""
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    if isinstance(key := image.info.get("transparency"), int):
        grey[values == key] = 255
    return Image.fromarray(grey)


def picture_of(given: Any) -> Image.Image:
    """A PIL image, an array of pixels or a uint8 tensor as 8-bit RGB, of a shape that can be resized.

    Args:
        given: a PIL image; an array (H, W) or (H, W, C) of uint8, uint16 or bool; or a uint8 tensor (C, H, W), with
            1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA) channels.

    Raises:
        InputError: not a picture, one without pixels, or one that is extremely elongated.
    """
    if isinstance(given, Tensor):
        given = given.movedim(0, -1).cpu().numpy() if given.dim() == 3 else given.cpu().numpy()
        picture = rgb(_from_array(given, "a uint8 tensor (3, H, W); channels come first in a tensor."))
    elif isinstance(given, np.ndarray):
        picture = rgb(_from_array(given, "an array (H, W, 3) of uint8; array.transpose(1, 2, 0) for channels first."))
    elif isinstance(given, Image.Image):
        picture = rgb(given)
    else:
        raise InputError("A picture: a PIL image, or its pixels.", shown(given), "PIL.Image.open(path).")
    short, long = sorted(picture.size)
    if not short or long > ELONGATED * short:
        raise InputError(
            f"A picture whose longer side is at most {ELONGATED} times the shorter one.",
            f"{picture.width} x {picture.height} pixels, which would be enlarged until the short side fits",
            "image.crop((left, upper, right, lower)), the part that matters.",
        )
    return picture


def _from_array(array: np.ndarray, hint: str) -> Image.Image:
    """Grey or colour, with or without alpha, as a PIL image."""
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    channels = array.shape[-1] if array.ndim == 3 else 1
    if array.dtype.kind == "f":
        hint = "torch.from_numpy(array) if it is preprocessed; (255 * array).astype('uint8') for values in [0, 1]."
    if array.dtype not in (np.uint8, np.uint16, np.bool_) or array.ndim not in (2, 3) or channels > 4 or not array.size:
        got = f"shape {array.shape} of {array.dtype}"
        raise InputError("Pixels (H, W) or (H, W, C) of uint8, uint16 or bool, C from 1 to 4.", got, hint)
    if array.dtype == np.bool_:
        array = 255 * array.astype(np.uint8)
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))
