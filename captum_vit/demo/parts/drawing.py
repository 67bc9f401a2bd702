"""How a scene of parts is drawn: everything about it is decided once, so that it can be drawn again without a part.

``B`` counts scenes, ``P`` = 5 parts of a figure, ``M`` = 3 objects beside it; ``S`` = 64 is the side of the canvas.
Coordinates are rows and columns in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

CANVAS = 64
SLOTS = torch.tensor([(-16.0, 0.0), (-4.0, -16.0), (-4.0, 16.0), (15.0, -10.0), (15.0, 10.0)])  # from the body's centre
N_PARTS, N_OBJECTS = len(SLOTS), 3
RADIUS = 5.5  # of a part
REACH = 23  # pixels from the body's centre within which the figure lies

# Red, green, blue, yellow for parts; white, cyan, magenta, orange for the objects beside the figure.
PART_COLOURS = torch.tensor([(0.85, 0.15, 0.15), (0.15, 0.7, 0.2), (0.2, 0.3, 0.9), (0.9, 0.8, 0.15)])
OBJECT_COLOURS = torch.tensor([(0.9, 0.9, 0.9), (0.2, 0.75, 0.8), (0.8, 0.3, 0.8), (0.95, 0.55, 0.2)])
BODY = torch.tensor([0.45, 0.38, 0.32])


@dataclass(frozen=True)
class Drawing:
    """What covers which pixels, in which colour."""

    ground: Tensor  # shape: (B, 3, S, S), with the noise
    body: Tensor  # shape: (B, 1, S, S), how much of each pixel it covers
    parts: Tensor  # shape: (B, P, S, S), likewise
    part_colours: Tensor  # shape: (B, P, 3)
    objects: Tensor  # shape: (B, M, S, S)
    object_colours: Tensor  # shape: (B, M, 3)

    def painted(self, parts: Tensor, objects: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [0, 1] with these parts (B, P) and objects (B, M), all else being the same."""
        canvas = _laid(self.ground, self.objects * objects[..., None, None], self.object_colours)
        canvas = _laid(canvas, self.body, BODY.expand(len(canvas), 1, 3))
        return _laid(canvas, self.parts * parts[..., None, None], self.part_colours).clamp(0, 1)


def drawn(kinds: Tensor, generator: Generator) -> Drawing:
    """Decide everything of a scene but the kinds (B, P) of its parts.

    A kind is a shape: 0 disc, 1 square, 2 triangle, 3 plus. The colour of a part follows from its kind and its place:
    kind k at place j has colour k + j, modulo 4.
    """
    n, spread = len(kinds), (len(kinds), N_OBJECTS)
    body = _uniform((n, 2), REACH, CANVAS - REACH, generator)
    places = body[:, None] + SLOTS + _uniform((n, N_PARTS, 2), -1.5, 1.5, generator)
    colours = PART_COLOURS[(kinds + torch.arange(N_PARTS)) % 4]
    tints = OBJECT_COLOURS[torch.randint(4, spread, generator=generator)]
    shapes, radii = torch.randint(4, spread, generator=generator), _uniform(spread, 3.5, 5.0, generator)
    return Drawing(
        ground=_ground(n, generator),
        body=_body(body),
        parts=covered(places, kinds, torch.full(kinds.shape, RADIUS)),
        part_colours=colours + _uniform(colours.shape, -0.1, 0.1, generator),
        objects=covered(_beside(body, places, generator), shapes, radii),
        object_colours=tints + _uniform(tints.shape, -0.1, 0.1, generator),
    )


def covered(
    places: Tensor,  # shape: (B, K, 2)
    shapes: Tensor,  # shape: (B, K)
    radii: Tensor,  # shape: (B, K)
) -> Tensor:  # shape: (B, K, S, S)
    """How much of each pixel lies within each shape, from its distance to the outline."""
    pixel = torch.arange(CANVAS)
    y, x = pixel[:, None] - places[..., 0, None, None], (pixel - places[..., 1, None, None]).abs()
    r = radii[..., None, None]
    disc = torch.hypot(x, y) - r
    square = torch.maximum(x, y.abs()) - 0.85 * r
    triangle = torch.maximum(0.87 * x + 0.5 * -y - 0.5 * r, y - 0.85 * r)
    plus = torch.minimum(
        torch.maximum(x - r, y.abs() - 0.4 * r),
        torch.maximum(y.abs() - r, x - 0.4 * r),
    )
    distance = torch.stack(torch.broadcast_tensors(disc, square, triangle, plus), 2)
    which = shapes[:, :, None, None, None].expand(-1, -1, 1, CANVAS, CANVAS)
    return (0.5 - distance.gather(2, which).squeeze(2)).clamp(0, 1)


def _body(centres: Tensor) -> Tensor:  # shape: (B, 1, S, S)
    """An ellipse, which belongs to every figure and is no part."""
    pixel = torch.arange(CANVAS)
    y, x = pixel[:, None] - centres[:, 0, None, None], pixel - centres[:, 1, None, None]
    return (4 * (1 - torch.hypot(x / 8, y / 9)) + 0.5).clamp(0, 1).unsqueeze(1)


def _laid(canvas: Tensor, ink: Tensor, colours: Tensor) -> Tensor:
    """Things (B, K, S, S) that do not overlap, in their colours (B, K, 3), over a canvas (B, 3, S, S)."""
    return canvas * (1 - ink.sum(1, keepdim=True)) + torch.einsum("bkhw,bkc->bchw", ink, colours)


def _beside(body: Tensor, parts: Tensor, generator: Generator, tries: int = 64) -> Tensor:
    """Places (B, M, 2) of objects, apart from the figure and from each other, as far as that is possible.

    One after the other: of many random places the one that is farthest from all that is there, as soon as it is far
    enough.
    """
    n, taken = len(body), torch.cat([body[:, None], parts], 1)
    room = torch.cat([torch.full((n, 1), 15.0), torch.full((n, N_PARTS), 12.5)], 1)
    for _ in range(N_OBJECTS):
        free = _uniform((n, tries, 2), 5, CANVAS - 6, generator)
        gap = ((free[:, :, None] - taken[:, None]).norm(dim=-1) - room[:, None]).amin(2)  # shape: (B, tries)
        best = gap.clamp(max=0).argmax(1)  # the first that is far enough, or the least near
        taken = torch.cat([taken, free[torch.arange(n), best][:, None]], 1)
        room = torch.cat([room, torch.full((n, 1), 12.0)], 1)
    return taken[:, 1 + N_PARTS :]


def _ground(n: int, generator: Generator) -> Tensor:
    """A plain colour that changes slowly across the canvas, and noise: (B, 3, S, S)."""
    ramp = torch.linspace(-1, 1, CANVAS)
    slopes = 0.08 * torch.randn(n, 2, 3, 1, 1, generator=generator)
    colour = _uniform((n, 3, 1, 1), 0.05, 0.2, generator)
    noise = 0.03 * torch.randn(n, 3, CANVAS, CANVAS, generator=generator)
    return colour + slopes[:, 0] * ramp[:, None] + slopes[:, 1] * ramp + noise


def _uniform(shape: tuple[int, ...] | torch.Size, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
