"""Which pixels the elements of a map stand for: those that the model's patches read, or an even share of the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from captum_vit.errors import InputError, ModelStateError, TraceError, UnsupportedModelError
from captum_vit.models.modules import module_of, unwrapped
from captum_vit.tokens import Box, placed
from captum_vit.trace.run.describe import transformer_of
from captum_vit.trace.run.layouts import layout_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import checked_inputs, undisturbed

Size = tuple[int, int]


@dataclass(frozen=True)
class Patches:
    """The patches of a model.

    Args:
        grid: rows and columns of them.
        box: the rectangle of pixels under the grid; beyond the image where the model pads it.
    """

    grid: Size
    box: Box

    @property
    def patch(self) -> Size | None:
        """Height and width of a patch in pixels; None where these are no whole numbers."""
        (rows, columns), (height, width) = self.grid, extent(self.box)
        return None if height % rows or width % columns else (height // rows, width // columns)


def patches_of(
    model: Any,
    inputs: Tensor,  # shape: (B, C, H, W)
    args: tuple[Any, ...] = (),
) -> Patches | None:
    """The patches of a transformer on images of this size; None for other models, of which nothing is known.

    Costs an embedding of one image; where the model pads, crops or resizes it, two more and a gradient.

    Raises:
        InputError: a model that crops or pads its image, and detaches it.
    """
    try:
        module = unwrapped(module_of(model))
        images = checked_inputs(inputs if args else inputs[:1], module)
        with undisturbed(module):
            layout = layout_of(Pass(module, images, args, transformer_of(module, images, args)))
    except (InputError, ModelStateError, TraceError, UnsupportedModelError):
        return None  # a convolutional network, say, or a model that no method of ours explains
    with undisturbed(module):
        if layout.grid is None or len(layout.grid) != 2:
            return None
        rows, columns = layout.grid
        return Patches((rows, columns), layout.box)


def box_under(
    patches: Callable[[], Patches | None],
    size: tuple[int, ...],  # of the map
    image: Size,
    patch: Size | None = None,
    tokens: bool = False,
) -> Box:
    """The rectangle of pixels that the elements of a map divide evenly: all, unless the model's patches contradict.

    Args:
        patches: finds the model's; not called for maps of pixels without `patch`.
        patch: the pixels, along a side, of what is made one element of a map of pixels.
        tokens: elements are patches of the model itself, since they go away inside it.

    Raises:
        InputError: a map that is neither of pixels nor of the model's patches, where these do not tile the image.
    """
    whole = (0, 0, *image)
    if size == image and patch is None:
        return whole
    found = patches()
    if found is None or found.box == whole:
        return whole
    height, width = extent(found.box)
    if size != image:
        fits = size == found.grid
    else:
        own, (down, across) = found.patch or (height, width), patch or (1, 1)
        fits = not (down % own[0] or across % own[1] or height % down or width % across)
        if not fits and not tokens:
            return whole  # cells of the caller's own, of pixels
    if fits:
        return found.box
    top, left, bottom, right = found.box
    raise InputError(
        f"Cells that are the model's {found.grid[0]} x {found.grid[1]} patches, which lie over rows {top} to {bottom} "
        f"and columns {left} to {right} of {image[0]} x {image[1]} pixels.",
        f"a map of {' x '.join(map(str, size))}"
        + ("" if patch is None else f", by patches of {patch[0]} x {patch[1]}"),
        "maps of the model's grid, maps of pixels with the model's own patch size, or images that its patches tile.",
    )


def extent(box: Box) -> Size:
    """Height and width of a rectangle."""
    top, left, bottom, right = box
    return bottom - top, right - left


def over_pixels(
    cells: Tensor,  # shape: (n, h, w), bool
    box: Box,
    size: Size,
) -> Tensor:  # shape: (n, H, W), bool
    """Each cell over its pixels; False where there is none."""
    return placed(cells.unsqueeze(1).float(), box, size, "nearest-exact").squeeze(1).bool()
