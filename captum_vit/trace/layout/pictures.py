"""Where the tokens of a tower lie in the pictures that it is given, also in tiles and rows of flat patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isqrt, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.description.two_towers import TwoTowers
from captum_vit.errors import OptionError, TraceError, UnsupportedModelError
from captum_vit.sites.nests import tensors_in
from captum_vit.sites.site import Site, ThisThreadOnly, reached
from captum_vit.tokens import placed
from captum_vit.trace.layout.grid import cells_along
from captum_vit.trace.layout.reach import bounds, single_readers

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Pictures:
    """The token at each place of each picture.

    Args:
        shape: of the pixels.
        grids: for each picture, in the order of the pixels, the number of the token at each place: (h, w), or
            (t, h, w) of a film. Tokens are numbered through all pictures; -1 where there is none.
        boxes: for each picture the pixels that its places divide evenly: top, left, bottom and right edge; empty where
            pixels come as flat patches.
        rows: (P,) the token of each row of flat patches; None of others.
        special: (M,) the tokens that read no pixel: CLS and registers.
    """

    shape: tuple[int, ...]
    grids: list[Tensor]
    boxes: list[Box]
    rows: Tensor | None
    special: Tensor

    def maps(
        self,
        relevance: Tensor,  # shape: (M,), of all tokens
    ) -> list[Tensor]:  # shape of each: (h, w)
        """A map of each picture; zero at a place without a token."""
        return [relevance[grid.clamp_min(0)].masked_fill(grid < 0, 0) for grid in self.grids]

    def lay_out(
        self,
        relevance: Tensor,  # shape: (M,)
        output: str,
    ) -> Tensor:
        """As the pixels are, with one channel and patches for pixels (``"grid"``), or enlarged to these (``"pixels"``).

        Flat patches (P, K) have one number each, (P, 1). Pictures of other sizes are filled up with zeros below and
        at the right.
        """
        if self.rows is not None:
            if output == "pixels":
                raise OptionError("A picture in pixels.", "pixels in flat patches", 'output="grid", or `images`.')
            return relevance[self.rows].unsqueeze(-1)
        maps, (*lead, _, height, width) = self.maps(relevance), self.shape
        if output == "pixels":
            boxed = zip(maps, self.boxes, strict=True)
            laid = [placed(one[None, None], box, (height, width), "bilinear")[0, 0] for one, box in boxed]
        else:
            h, w = (max(one.shape[axis] for one in maps) for axis in (0, 1))
            laid = [F.pad(one, (0, w - one.shape[1], 0, h - one.shape[0])) for one in maps]
        return torch.stack(laid).view(*lead, 1, *laid[0].shape)


def given_to_tower(
    model: nn.Module, towers: TwoTowers, inputs: tuple[Tensor, ...], args: tuple[Any, ...]
) -> list[Tensor]:
    """The whole numbers and masks that the tower is given beside the pixels: sizes, hidden patches.

    Costs the pass as far as the tower. Call it inside ``undisturbed``.
    """
    found: list[Tensor] = []

    def see(module: nn.Module, given: Any, named: Any) -> None:
        found.extend(x for x in tensors_in((given, named)) if not x.is_floating_point())

    handle = towers.eyes.register_forward_pre_hook(ThisThreadOnly(see), with_kwargs=True)
    try:
        reached(Site(towers.eyes, "input"), partial(model, *inputs, *args))
    finally:
        handle.remove()
    return found


def pictures_of(
    model: nn.Module,
    towers: TwoTowers,
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
    given: list[Tensor],
    per_token: Callable[[], int | None],
) -> Pictures:
    """Where tokens lie in these very pictures: by gradients that number the token that reads each pixel.

    Costs the pass as far as the tower's first block, and 2 log2 M gradients through that. Call it inside
    ``undisturbed``, under no rule.

    Args:
        model: what runs.
        towers: its places.
        inputs: ids and pixels.
        args: further arguments.
        given: what the tower is given beside the pixels.
        per_token: finds of how many patches the language model makes one token; called for flat patches.

    Raises:
        UnsupportedModelError: tokens that share pixels, or do not lie on a grid.
    """
    ids, pixels = inputs
    leaf = pixels.detach()[None].clone().requires_grad_()
    with torch.enable_grad():
        tokens = reached(towers.patches, partial(model, ids, leaf[0], *args))
    if tokens is None:
        raise TraceError("A tower that reads the pictures.", "one that did not run", "ids and their pixels.")
    with torch.enable_grad():
        tokens = tokens.reshape(1, -1, tokens.shape[-1])
    spelt = single_readers(tokens, leaf)
    if spelt is None:
        raise _no_grid("tokens at which no gradient starts that arrives at the pixels")
    token = spelt[0]
    special = torch.ones(tokens.shape[1], dtype=torch.bool, device=token.device)
    special[token[token >= 0]] = False
    shape = tuple(pixels.shape)
    if pixels.dim() > 2:
        each = token.reshape(-1, *shape[-3:]) if pixels.dim() > 3 else token.unsqueeze(1)
        laid = list(map(_grid, each))
        return Pictures(shape, [grid for grid, _ in laid], [box for _, box in laid], None, special)
    rows = token.amax(1)
    if len(rows.unique()) < len(rows) or bool((rows < 0).any()):
        raise _no_grid("flat patches that have no token of their own")
    sizes = next((x.tolist() for x in given if _are_sizes(x, len(pixels))), None)
    grids = [] if sizes is None else _in_order(rows, sizes, per_token())
    return Pictures(shape, grids, [], rows, special)


def _grid(token: Tensor) -> tuple[Tensor, Box]:  # shapes: (C, H, W) -> (h, w)
    """The token at each place of one picture, by the only token that reads each pixel."""
    single = token >= 0
    found, number = token[single].unique(return_inverse=True)
    if not len(found):  # a picture of nothing but padding
        return token.new_full((1, 1), -1), (0, 0, 1, 1)
    first, behind = bounds(single, number, len(found))
    row, h = cells_along((first + behind)[:, 1] / 2, (behind - first)[:, 1])
    column, w = cells_along((first + behind)[:, 2] / 2, (behind - first)[:, 2])
    places = row * w + column
    if len(places.unique()) < len(places):
        raise _no_grid(f"{len(found)} tokens at {len(places.unique())} places of {h} x {w}")
    grid = token.new_full((h * w,), -1)
    grid[places] = found
    (top, left), (bottom, right) = first.amin(0)[1:].tolist(), behind.amax(0)[1:].tolist()
    return grid.view(h, w), (top, left, bottom, right)


def _are_sizes(x: Tensor, patches: int) -> bool:
    """Whether these are the numbers of flat patches along time, height and width of each picture."""
    of_three = not x.is_floating_point() and x.dim() == 2 and x.shape[1] == 3
    return of_three and int(x.prod(1).sum()) == patches


def _in_order(rows: Tensor, sizes: list[list[int]], per_token: int | None) -> list[Tensor]:
    """The tokens of flat patches, picture by picture: those of one token follow each other, and are a square."""
    side = isqrt(per_token or 0)
    if not side or side**2 != per_token or any(h % side or w % side for _, h, w in sizes):
        raise _no_grid(f"image tokens that are made of {per_token or 'different numbers of'} flat patches each")
    pictures = zip(rows.split([prod(size) for size in sizes]), sizes, strict=True)
    return [
        one.view(t, h // side, w // side, side, side).transpose(2, 3).reshape((t, h, w) if t > 1 else (h, w))
        for one, (t, h, w) in pictures
    ]


def _no_grid(got: str) -> UnsupportedModelError:
    wanted = "Pictures that are cut into patches, with one token for each."
    return UnsupportedModelError(wanted, got, 'output="tokens", which lays them out nowhere.')
