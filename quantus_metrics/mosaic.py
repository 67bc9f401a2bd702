"""Mosaics: images of several classes side by side, where it is known which cell is whose."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import InputError, OptionError
from captum_vit.options import integer, integer_or_none, two_integers
from quantus_metrics.bridge import to_array, to_tensor


def mosaics(
    images: Any,  # shape: (N, C, H, W), array or tensor
    labels: Any,  # shape: (N,), the class of each
    n_mosaics: int | None = None,
    side: int = 2,
    size: tuple[int, int] | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Mosaics of ``side`` x ``side`` images of different classes, each explained for every one of its classes.

    Args:
        images: as the model wants them, normalised. The authors take images that the model is sure of; choose so.
        labels: the class that each shows.
        n_mosaics: how many; as many as the images would fill, by default.
        side: cells in a row, and in a column.
        size: height and width of a mosaic, multiples of `side`. By default that of one image, since most vision
            transformers take no other: the images shrink. ``(side * H, side * W)`` leaves them as they are.
        seed: of the draw.

    Returns:
        What metrics take, under Quantus's names, with one row for each cell of each mosaic, S = n_mosaics · side²:
        ``x_batch`` (S, C, height, width), ``y_batch`` (S,) the class of the cell, and ``s_batch``
        (S, 1, height, width), 1 in the cell.

    Raises:
        InputError: not one label per image, or fewer classes than cells.
        OptionError: sizes that make no mosaic.
    """
    pictures, classes = to_tensor(images), to_tensor(labels).long()
    if pictures.dim() != 4 or classes.shape != pictures.shape[:1] or not len(pictures):
        got = f"shapes {tuple(pictures.shape)} and {tuple(classes.shape)}"
        raise InputError("Images (N, C, H, W) and a label for each.", got, "images[:n] and labels[:n] of the same n.")
    integer("side", side, least=2, hint="side=2.")
    integer("seed", seed, least=0, hint="seed=0.")
    height, width = two_integers("size", size, hint="size=None.") or (pictures.shape[2], pictures.shape[3])
    if height % side or width % side:
        hint = f"size=({side * pictures.shape[2]}, {side * pictures.shape[3]}), which leaves the images as they are."
        raise OptionError("A `size` that `side` divides.", f"side {side}, size {height} x {width}", hint)
    fill = max(1, len(pictures) // side**2)
    n = integer_or_none("n_mosaics", n_mosaics, hint="None for as many as the images fill.") or fill

    chosen = _choose(classes, n, side**2, seed)  # (M, cells)
    cell = (height // side, width // side)
    pictures = pictures if pictures.is_floating_point() else pictures.float()
    small = pictures if pictures.shape[-2:] == cell else F.interpolate(pictures, cell, mode="bilinear", antialias=True)
    tiles = small[chosen].unflatten(1, (side, side))  # (M, rows, columns, C, h, w)
    laid = tiles.permute(0, 3, 1, 4, 2, 5).reshape(n, pictures.shape[1], height, width)
    own = torch.eye(side**2).view(-1, 1, side, side)  # (cells, 1, rows, columns)
    masks = own.repeat_interleave(cell[0], 2).repeat_interleave(cell[1], 3)
    return {
        "x_batch": to_array(laid.repeat_interleave(side**2, 0)),
        "y_batch": classes[chosen].flatten().cpu().numpy(),
        "s_batch": to_array(masks.repeat(n, 1, 1, 1)),
    }


def _choose(classes: Tensor, n: int, cells: int, seed: int) -> Tensor:  # shape: (n, cells), rows of the images
    """For each mosaic different random classes, and of each class a random image."""
    generator = torch.Generator().manual_seed(seed)
    kinds = classes.unique()
    if len(kinds) < cells:
        raise InputError(f"Images of at least {cells} classes.", f"{len(kinds)} classes", "a smaller `side`.")
    members = [(classes == kind).nonzero().flatten() for kind in kinds]

    def lot(below: int) -> int:
        return int(torch.randint(below, (), generator=generator))

    rows = [torch.randperm(len(kinds), generator=generator)[:cells].tolist() for _ in range(n)]
    return torch.tensor([[members[kind][lot(len(members[kind]))].item() for kind in row] for row in rows])
