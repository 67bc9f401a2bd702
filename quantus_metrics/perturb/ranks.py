"""Which part is removed first: from relevance to ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.options import generator_or_none, one_of, two_integers
from captum_vit.tokens import Box, placed
from quantus_metrics.cells import Size, extent

ORDERS = ("mif", "lif", "random")


def rank(
    relevance: Tensor,  # shape: (B, h, w), or (B, T) of words
    order: str = "mif",
    generator: torch.Generator | None = None,
    among: Tensor | None = None,  # same shape, bool
) -> Tensor:  # same shape, a permutation of 0 .. h*w-1 per image
    """When each element leaves: rank 0 first, so ``rank < n`` are the first ``n`` to go.

    Signed maps are ranked as they are. Among equals the upper left leaves first, under both orders; so the
    "lif" ranks of a map are the "mif" ranks of its negative, always.

    Args:
        order: "mif" most important first, "lif" least important first, "random" at random.
        generator: draws the random order; None draws from torch's global state. The other orders draw nothing.
        among: who may leave at all; the others come last, under every order.
    """
    values = relevance.flatten(1)  # (B, P)
    if one_of("order", order, ORDERS) == "random":
        generator_or_none("generator", generator)
        where = values.device if generator is None else generator.device
        values = torch.rand(values.shape, generator=generator, device=where).to(values.device)
    leaving = values.argsort(dim=1, descending=order == "mif", stable=True)
    if among is not None:
        staying = ~among.flatten(1).gather(1, leaving)
        leaving = leaving.gather(1, staying.int().argsort(dim=1, stable=True))
    turns = torch.arange(values.shape[1], device=values.device).expand_as(leaving)
    return torch.empty_like(leaving).scatter_(1, leaving, turns).view_as(relevance)


def ranking_map(
    relevance: Tensor,  # shape: (B, h, w) or (B, 1, h, w)
    image_size: Size,
    patch_size: int | Size | None = None,
    box: Box | None = None,
) -> Tensor:  # shape: (B, h, w), one value for each element that leaves as a whole
    """The map at the size at which it is ranked.

    A map of patches is ranked as it is, and whole patches will leave. A map of pixels is ranked pixel by
    pixel, or, given `patch_size`, by its mean over each patch; a map that is constant on each patch gives
    exactly the patch's value.

    Args:
        box: the pixels that patches divide, of a model whose patches do not tile the image: see `curves`. None is all.

    Raises:
        InputError: no picture, an empty one, a size that does not divide the image, values that are not
            finite, or an image whose map is constant and therefore ranks nothing.
    """
    maps = relevance.squeeze(1) if relevance.dim() == 4 and relevance.shape[1] == 1 else relevance
    box = box or (0, 0, *image_size)
    _check_size(maps, relevance, image_size, box)
    _check_rows(maps.isfinite().flatten(1).all(1), "finite relevance", "a method that gives no NaN here.")

    patch = patch_of(patch_size)
    if patch is not None and maps.shape[-2:] == image_size:
        maps = _means(maps, patch, box)
    elif patch is not None and (maps.shape[-2] * patch[0], maps.shape[-1] * patch[1]) != extent(box):
        raise InputError(
            f"A map of patches of {patch[0]} x {patch[1]} pixels for an image of {_times(extent(box))}.",
            f"a map of {_times(maps.shape[-2:])}",
            "patch_size=None: the size of a patch follows from a map of patches.",
        )
    varied = maps.flatten(1).amax(1) > maps.flatten(1).amin(1)
    _check_rows(varied, "relevance that varies within each image", "another method, target or patch_size.")
    return maps


def at_size(
    relevance: Tensor,  # shape: (B, 1, h, w)
    size: Size,
    box: Box | None = None,
) -> Tensor:  # shape: (B, 1, *size)
    """The map at the size of another one, so that both have the same value for the same parts.

    From pixels to patches it is the mean over each patch, exact where the patch is constant; from patches to pixels
    each patch is repeated.

    Args:
        box: the pixels under the patches; None is the image.

    Raises:
        InputError: sizes of which neither divides the other.
    """
    own = (relevance.shape[-2], relevance.shape[-1])
    if own == size:
        return relevance
    check_sizes(own, size, box)
    box = box or (0, 0, *max(own, size))
    if own < size:
        return placed(relevance, box, size, "nearest-exact")
    height, width = extent(box)
    return _means(relevance.squeeze(1), (height // size[0], width // size[1]), box).unsqueeze(1)


def check_sizes(one: Size, other: Size, box: Box | None = None) -> None:
    """Maps that can be brought to one size: one is the grid of patches of the other, or of a box in it."""
    small, large = min(one, other), max(one, other) if box is None else extent(box)
    if large[0] % small[0] or large[1] % small[1]:
        raise InputError(
            "Maps of one size, or of pixels and of their patches, to be compared.",
            f"maps of {_times(one)} and of {_times(other)}",
            "both with the same `output`, or both from explain_func.",
        )


def divides(size: tuple[int, ...], image_size: Size) -> bool:
    """Whether as many cells divide the image evenly, into whole pixels."""
    return len(size) == 2 and all(n > 0 and length % n == 0 for n, length in zip(size, image_size, strict=True))


def patch_of(patch_size: int | Size | None) -> Size | None:
    """Height and width of a patch."""
    hint = "patch_size=16, the model's own, or None for maps of patches."
    return two_integers("patch_size", patch_size, hint=hint)


def ranking_words(
    relevance: Tensor,  # shape: (B, T)
    size: tuple[int, ...],  # of the token ids
) -> Tensor:  # shape: (B, T)
    """The relevance of words, checked.

    Raises:
        InputError: not one number for each token, values that are not finite, or a text whose map is constant.
    """
    if relevance.shape != size:
        hint = 'maps of these very ids, made with output="tokens".'
        got = f"relevance of shape {tuple(relevance.shape)}"
        raise InputError(f"Relevance of each token, {tuple(size)}.", got, hint)
    _check_rows(relevance.isfinite().all(1), "finite relevance", "a method that gives no NaN here.")
    varied = relevance.amax(1) > relevance.amin(1)
    _check_rows(varied, "relevance that varies within each text", "another method or target.")
    return relevance


def _means(
    maps: Tensor,  # shape: (B, H, W)
    patch: Size,
    box: Box,
) -> Tensor:  # shape: (B, box height / patch height, box width / patch width)
    """The mean over the pixels of each patch, as first + mean(rest − first): exact where the patch is constant."""
    height, width = extent(box)
    if min(patch) < 1 or height % patch[0] or width % patch[1]:
        raise InputError(
            f"Patches of {_times(patch)} pixels that tile the map.",
            f"a map of {_times(maps.shape[-2:])}",
            "the patch size of the model, or patch_size=None to rank pixels.",
        )
    top, left, bottom, right = box
    rows, columns = (torch.arange(*ends, device=maps.device) for ends in ((top, bottom), (left, right)))
    near = [at.clamp(0, n - 1) for at, n in zip((rows, columns), maps.shape[-2:], strict=True)]  # padding has no pixels
    there = ((rows == near[0]).unsqueeze(1) & (columns == near[1])).to(maps)
    tiles, there = (_tiles(x, patch) for x in (maps[:, near[0]][:, :, near[1]], there.unsqueeze(0)))
    first = tiles[..., 0]
    return first + ((tiles - first.unsqueeze(-1)) * there).sum(-1) / there.sum(-1)


def _tiles(
    maps: Tensor,  # shape: (B, H, W)
    patch: Size,
) -> Tensor:  # shape: (B, h, w, pixels)
    return maps.unfold(1, patch[0], patch[0]).unfold(2, patch[1], patch[1]).flatten(3)


def _check_size(maps: Tensor, given: Tensor, image_size: Size, box: Box) -> None:
    laid = box != (0, 0, *image_size)  # over what the patches read, into as many parts as they are
    if maps.dim() != 3 or maps.numel() == 0 or not (laid or divides(tuple(maps.shape[-2:]), image_size)):
        raise InputError(
            "One map per image, (B, h, w) or (B, 1, h, w), as large as the image or its grid of patches: "
            f"h divides {image_size[0]} and w divides {image_size[1]}.",
            f"relevance of shape {tuple(given.shape)}",
            "relevance.sum(1) for a map with channels; prefix tokens such as CLS must be left out.",
        )


def _check_rows(good: Tensor, wanted: str, hint: str) -> None:
    if not good.all():
        rows = (~good).nonzero().flatten().tolist()
        raise InputError(f"Rows of {wanted}.", f"none in row(s) {rows[:10]} of a batch of {len(good)}", hint)


def _times(size: tuple[int, ...] | torch.Size) -> str:
    return " x ".join(map(str, size))
