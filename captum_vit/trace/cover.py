"""Which pixels a grid of patches covers: read off the convolution that cuts them, and followed back to the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError
from captum_vit.sites.site import Site
from captum_vit.tokens import Box

Run = Callable[[Tensor], Any]
"""Runs the embedding on an image in place of its own."""


def box_of(convolution: nn.Conv2d, picture: tuple[int, int], grid: tuple[int, int]) -> Box | None:
    """The rectangle that a convolution reads, its padding included, in pixels of the picture that it is given.

    None where that is the picture, or cannot be told from its kernel (padding that it adds by itself). Padding that
    patches share with their neighbours' pixels is left out: patches that overlap divide what they read of the picture.
    """
    edges = []
    for axis, (size, cells) in enumerate(zip(picture, grid, strict=True)):
        reach = convolution.dilation[axis] * (convolution.kernel_size[axis] - 1) + 1
        padding = convolution.padding
        before = int(padding[axis]) if isinstance(padding, tuple) else (reach - 1) // 2 * (padding == "same")
        end = (cells - 1) * convolution.stride[axis] + reach - before
        if end > size + before + (reach - 1) % 2:
            return None
        overlap = reach > convolution.stride[axis]
        edges.append((0, min(end, size)) if overlap else (-before, end))
    (top, bottom), (left, right) = edges
    box = top, left, bottom, right
    return None if box == (0, 0, *picture) else box


def followed(box: Box, image: Tensor, convolution: nn.Conv2d, run: Run) -> Box:
    """A rectangle of what a convolution is given, as one of the image from which the model makes it.

    Found by trying: the pixels that have a gradient, and the entries that change with the image, are as many where
    the image is padded or cropped, which shifts it, and of different numbers where it is resized.

    Costs the embedding twice, and its gradient.
    """
    leaf = image.detach().clone().requires_grad_()
    with torch.enable_grad():
        given = _given(convolution, lambda: run(leaf))
        weights = torch.arange(1, given[0].numel() + 1, device=given.device, dtype=given.dtype).cos().view_as(given[0])
        slope = torch.autograd.grad((given * weights).sum(), leaf)[0] if given.requires_grad else None
    if slope is None or not slope.any():
        raise InputError(
            "An image whose way to the patches can be followed with a gradient.",
            "an embedding that detaches it",
            'output="grid", or a picture of the size that the patches are cut from.',
        )
    other = _given(convolution, lambda: run(image + torch.linspace(0.5, 1, image.numel()).to(image).view_as(image)))
    edges = []
    for axis, ends in ((-2, (box[0], box[2])), (-1, (box[1], box[3]))):
        (start, end), (first, last) = _extent(slope, axis), _extent(given.detach() - other, axis)
        scale = (end - start) / (last - first)
        edges.append([round(start + (edge - first) * scale) for edge in ends])
    (top, bottom), (left, right) = edges
    return top, left, bottom, right


def _extent(x: Tensor, axis: int) -> tuple[int, int]:
    """From the first row or column that is not zero to behind the last."""
    places = x.ne(0).movedim(axis, 0).flatten(1).any(1).nonzero()
    return int(places[0]), int(places[-1]) + 1


class _Reached(Exception):
    """The convolution has been given its picture: nothing else is needed."""


def _given(convolution: nn.Conv2d, run: Callable[[], Any]) -> Tensor:
    """What a convolution is given in a pass, which ends there; of several times the last one is not waited for."""
    seen: list[Tensor] = []

    def stop(x: Tensor) -> None:
        seen.append(x)
        raise _Reached

    handle = Site(convolution, "input").hook(stop)
    try:
        run()
    except _Reached:
        pass
    finally:
        handle.remove()
    return seen[0]
