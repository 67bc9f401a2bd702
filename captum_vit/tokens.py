"""Where tokens lie: the sequence, the grid of patches inside it, and the pixels under the grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import InputError, OptionError
from captum_vit.options import one_of

Box = tuple[int, ...]
"""First steps along the axes of a grid, and then those behind the last: of an image top, left, bottom and right edge in
pixels. It may reach beyond."""

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}  # by the number of axes
OUTPUTS = ("grid", "tokens", "pixels", "channels")


@dataclass(frozen=True)
class TokenLayout:
    """Which place of the input each token of a sequence stands for.

    Args:
        n_tokens: length of the sequence, special tokens included.
        grid: rows and columns of places, or those along each axis of a film or a volume; None for text, where every
            token stands for a word.
        image_size: height and width of the input in pixels, or its steps along each of these axes; None for text.
        keep: (B, N) True where a text token is real and False where it is padding; None if all are real.
        covered: the pixels that the places divide evenly; None where that is the image.
        places: the token of each place, row by row, and -1 for a place without one; None where these are the last
            tokens, in this order.
        along: the dimensions of a sample along which the grid lies; None where these are the last ones. Of frames of a
            sound, which have no grid, that of time.
    """

    n_tokens: int
    grid: tuple[int, ...] | None = None
    image_size: tuple[int, ...] | None = None
    keep: Tensor | None = None
    covered: Box | None = None
    places: tuple[int, ...] | None = None
    along: tuple[int, ...] | None = None

    @property
    def n_places(self) -> int:
        """Cells of the grid; of a text, its tokens."""
        return self.n_tokens if self.grid is None else prod(self.grid)

    @cached_property
    def standing(self) -> slice | Tensor:
        """Selects the tokens that have a place, in the order of the sequence; an index for dimension 1."""
        if self.places is None:
            return slice(self.n_tokens - self.n_places, None)
        return torch.tensor(sorted(token for token in self.places if token >= 0))

    @cached_property
    def special(self) -> list[int]:
        """The tokens that have no place: CLS, registers, prompts."""
        if self.places is None:
            return list(range(self.n_tokens - self.n_places))
        return sorted(set(range(self.n_tokens)) - set(self.places))

    @property
    def prefix(self) -> int:
        """Number of special tokens in front of all others."""
        return next((i for i, token in enumerate(self.special) if token != i), len(self.special))

    @property
    def in_front(self) -> bool:
        """Whether no special token stands among or behind the others, so that a shorter sequence leaves them there."""
        return self.prefix == len(self.special)

    @property
    def box(self) -> Box:
        """The pixels that the grid covers: all, but where a border is not read, or was added by padding."""
        if self.image_size is None:
            raise OptionError("Patches of an image.", "a text", 'output="tokens".')
        return (*[0] * len(self.image_size), *self.image_size) if self.covered is None else self.covered

    def patches(
        self,
        tokens: Tensor,  # shape: (B, N, ...)
    ) -> Tensor:  # shape: (B, h*w, ...); for text all tokens
        """What belongs to each place of the input, row by row; zero at a place without a token."""
        if self.places is None:
            return tokens[:, self.standing]
        places = torch.tensor(self.places, device=tokens.device)
        found, empty = tokens[:, places.clamp_min(0)], places < 0
        return found.masked_fill(empty.view(-1, *[1] * (tokens.dim() - 2)), 0) if -1 in self.places else found

    def from_patches(
        self,
        patches: Tensor,  # shape: (B, h*w, ...)
    ) -> Tensor:  # shape: (B, N, ...)
        """Each place's to its token; zero for special tokens."""
        if self.places is None:
            return self.lengthened(patches)
        places = torch.tensor(self.places, device=patches.device)
        tokens = patches.new_zeros(len(patches), self.n_tokens, *patches.shape[2:])
        tokens[:, places[places >= 0]] = patches[:, places >= 0]
        return tokens

    def lengthened(
        self,
        standing: Tensor,  # shape: (B, P, ...), of the tokens that have a place, in the order of the sequence
    ) -> Tensor:  # shape: (B, N, ...)
        """With zeros for the special tokens among them."""
        if self.places is None:
            return F.pad(standing, (*[0] * 2 * (standing.dim() - 2), self.n_tokens - standing.shape[1], 0))
        tokens = standing.new_zeros(len(standing), self.n_tokens, *standing.shape[2:])
        tokens[:, self.standing] = standing
        return tokens

    def in_sequence(
        self,
        special_first: Tensor,  # shape: (N,), special tokens and then those that have a place
    ) -> Tensor:  # shape: (N,)
        """Each token's at its place in the sequence."""
        if self.places is None:
            return special_first
        standing = [token for token in range(self.n_tokens) if token not in self.special]
        found = torch.empty_like(special_first)
        found[[*self.special, *standing]] = special_first
        return found

    def to_grid(
        self,
        relevance: Tensor,  # shape: (B, N, ...)
    ) -> Tensor:  # shape: (B, ..., h, w), or (B, ..., t, h, w); text (B, N, ...) unchanged
        """Patches as a picture, or as a film; a trailing class dimension becomes the channels."""
        if self.grid is None:
            return relevance
        patches = self.patches(relevance)
        channels = patches.reshape(*patches.shape[:2], -1).movedim(-1, 1)
        return channels.unflatten(-1, self.grid)

    def to_pixels(
        self,
        relevance: Tensor,  # shape: (B, N)
    ) -> Tensor:  # shape: (B, 1, H, W), or (B, 1, T, H, W)
        """The grid enlarged linearly to the pixels that it covers; zero where the model reads none."""
        if self.grid is None or self.image_size is None:
            raise OptionError(
                'output="pixels" needs an image.',
                "a model whose tokens are not patches of an image",
                'output="tokens".',
            )
        return placed(self.to_grid(relevance), self.box, self.image_size, LINEAR[len(self.grid)])

    def patch_size(
        self,
        x: Tensor,  # shape: (B, ...), the input
    ) -> tuple[int, ...]:
        """Steps of a patch along each axis, such as its height and width; refused if patches do not tile this input."""
        axes = self._axes_of(x)
        if self.grid is not None and tuple(x.shape[axis] for axis in axes) == self.image_size:
            starts, ends = self.box[: len(axes)], self.box[len(axes) :]
            sides = [end - start for start, end in zip(starts, ends, strict=True)]
            if all(side % cells == 0 for side, cells in zip(sides, self.grid, strict=True)):
                return tuple(side // cells for side, cells in zip(sides, self.grid, strict=True))
        raise InputError(
            "An image that its patches tile, which enters the patch embedding unchanged.",
            f"an input of shape {tuple(x.shape)} for patches in a grid of {self.grid}",
            "an image whose sides are multiples of the patch size, resized before the model; or a method that reads "
            "tokens, such as DecompX.",
        )

    def _axes_of(self, x: Tensor) -> list[int]:
        """The dimensions of an input along which the grid lies."""
        n = 0 if self.grid is None else len(self.grid)
        return list(range(x.dim() - n, x.dim())) if self.along is None else [1 + axis for axis in self.along]

    def from_pixels(
        self,
        relevance: Tensor,  # shape: that of the input, such as (B, C, H, W), or (B, T, C, H, W) of a film
    ) -> Tensor:  # shape: (B, N)
        """Each patch the sum over its pixels and channels; special tokens, under which no pixel lies, get zero."""
        patch, axes = self.patch_size(relevance), self._axes_of(relevance)
        assert self.grid is not None and self.image_size is not None
        others = [axis for axis in range(1, relevance.dim()) if axis not in axes]
        pixels = relevance.sum(others) if others else relevance
        sides = list(zip(self.box[: len(axes)], self.box[len(axes) :], self.image_size, strict=True))
        covered = F.pad(pixels, [pad for start, end, whole in reversed(sides) for pad in (-start, end - whole)])
        divided = [size for pair in zip(self.grid, patch, strict=True) for size in pair]
        sums = covered.reshape(len(covered), *divided).sum(list(range(2, 2 + 2 * len(axes), 2)))
        return self.from_patches(sums.flatten(1))

    def counted(
        self,
        like: Tensor,  # shape: (B, ...)
        prefix: bool = True,
    ) -> Tensor:  # shape: (B, N)
        """1 for each token that counts and 0 for padding; without ``prefix`` 0 for special tokens too."""
        ones = like.new_ones(len(like), self.n_tokens) if self.keep is None else self.keep.to(like)
        return ones if prefix else self.silence_special(ones)

    def mean_row(
        self,
        like: Tensor,  # shape: (B, ...)
    ) -> Tensor:  # shape: (B, 1, N)
        """Equal weights, of a sum of 1, for all tokens but padding: times a matrix of rows it is their mean."""
        counted = self.counted(like)
        return (counted / counted.sum(1, keepdim=True)).unsqueeze(1)

    def silence_special(
        self,
        x: Tensor,  # shape: (B, N)
    ) -> Tensor:  # shape: (B, N)
        """Special tokens get exactly zero, in a copy."""
        silent = x.clone()
        silent[:, slice(self.prefix) if self.places is None else self.special] = 0
        return silent

    def silence_padding(
        self,
        relevance: Tensor,  # shape: (B, N, ...)
    ) -> Tensor:
        """Padding gets exactly zero."""
        if self.keep is None:
            return relevance
        keep = self.keep.reshape(*self.keep.shape, *[1] * (relevance.dim() - 2))
        return relevance.masked_fill(~keep, 0)

    def lay_out(
        self,
        relevance: Tensor,  # shape: (B, N)
        output: str,
    ) -> Tensor:
        """The form that the user chose: one of ``"grid"``, ``"tokens"``, ``"pixels"``."""
        relevance = self.silence_padding(relevance)
        if output == "tokens":
            return relevance
        return self.to_grid(relevance) if output == "grid" else self.to_pixels(relevance)


def placed(
    maps: Tensor,  # shape: (B, C, h, w), or with other axes
    box: Box,
    size: tuple[int, ...],
    mode: str,
) -> Tensor:  # shape: (B, C, H, W)
    """Grids enlarged to the pixels that they cover, in an image of this size; zero elsewhere."""
    starts, ends = box[: len(size)], box[len(size) :]
    sides = list(zip(starts, ends, size, strict=True))
    large = F.interpolate(maps, tuple(end - start for start, end, _ in sides), mode=mode)
    return F.pad(large, [pad for start, end, whole in reversed(sides) for pad in (start, whole - end)])


def check_output(output: str, allowed: tuple[str, ...] = OUTPUTS) -> str:
    """Refuse an unknown output form before any work starts."""
    return one_of("output", output, allowed)
