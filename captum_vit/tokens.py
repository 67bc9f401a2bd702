"""Where tokens lie: the sequence, the grid of patches inside it, and the pixels under the grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import InputError, OptionError
from captum_vit.options import one_of

Box = tuple[int, int, int, int]
"""Top, left, bottom and right edge in pixels of an image; it may reach beyond."""

OUTPUTS = ("grid", "tokens", "pixels", "channels")


@dataclass(frozen=True)
class TokenLayout:
    """How a sequence of ``n_tokens`` tokens covers an input.

    Args:
        n_tokens: length of the sequence, prefix included.
        grid: rows and columns of patches; None for text.
        image_size: height and width of the input in pixels; None for text.
        keep: (B, N) True where a text token is real and False where it is padding; None if all are real.
        measured: gives the rectangle of pixels that the grid covers; None where it covers the image.
    """

    n_tokens: int
    grid: tuple[int, int] | None = None
    image_size: tuple[int, int] | None = None
    keep: Tensor | None = None
    measured: Callable[[], Box] | None = field(default=None, compare=False, repr=False)

    @property
    def prefix(self) -> int:
        """Number of special tokens (CLS, distillation, registers) in front of the patches."""
        return 0 if self.grid is None else self.n_tokens - self.grid[0] * self.grid[1]

    @property
    def box(self) -> Box:
        """The pixels that the grid covers: all, but where a border is not read, or was added by padding."""
        if self.image_size is None:
            raise OptionError("Patches of an image.", "a text", 'output="tokens".')
        return (0, 0, *self.image_size) if self.measured is None else self.measured()

    def patches(
        self,
        tokens: Tensor,  # shape: (B, N, ...)
    ) -> Tensor:  # shape: (B, h*w, ...); for text all tokens
        """The tokens that stand for a place in the input."""
        return tokens[:, self.prefix :]

    def to_grid(
        self,
        relevance: Tensor,  # shape: (B, N, ...)
    ) -> Tensor:  # shape: (B, ..., h, w); text (B, N, ...) unchanged
        """Patches as a picture; a trailing class dimension becomes the channels."""
        if self.grid is None:
            return relevance
        patches = self.patches(relevance)
        channels = patches.reshape(*patches.shape[:2], -1).movedim(-1, 1)
        return channels.unflatten(-1, self.grid)

    def to_pixels(
        self,
        relevance: Tensor,  # shape: (B, N)
    ) -> Tensor:  # shape: (B, 1, H, W)
        """The grid enlarged bilinearly to the pixels that it covers; zero where the model reads none."""
        if self.grid is None or self.image_size is None:
            raise OptionError(
                'output="pixels" needs an image.',
                "a model whose tokens are not patches of an image",
                'output="tokens".',
            )
        return placed(self.to_grid(relevance), self.box, self.image_size, "bilinear")

    def patch_size(
        self,
        image: Tensor,  # shape: (B, C, H, W)
    ) -> tuple[int, int]:
        """Height and width of a patch in pixels; refused if the patches do not tile this very image."""
        height, width = image.shape[-2:]
        if self.grid is not None and (height, width) == self.image_size:
            top, left, bottom, right = self.box
            if (bottom - top) % self.grid[0] == (right - left) % self.grid[1] == 0:
                return (bottom - top) // self.grid[0], (right - left) // self.grid[1]
        raise InputError(
            "An image that its patches tile, handed to the patch embedding as it is.",
            f"{height} x {width} pixels for patches in a grid of {self.grid}",
            "an image whose sides are multiples of the patch size, resized before the model.",
        )

    def from_pixels(
        self,
        relevance: Tensor,  # shape: (B, C, H, W)
    ) -> Tensor:  # shape: (B, N)
        """Each patch the sum over its pixels and channels; prefix tokens, under which no pixel lies, get zero."""
        patch, (height, width) = self.patch_size(relevance), relevance.shape[-2:]
        top, left, bottom, right = self.box
        covered = F.pad(relevance.sum(1, keepdim=True), (-left, right - width, -top, bottom - height))
        sums = F.avg_pool2d(covered, patch, divisor_override=1)
        return F.pad(sums.flatten(1), (self.prefix, 0))

    def counted(
        self,
        like: Tensor,  # shape: (B, ...)
        prefix: bool = True,
    ) -> Tensor:  # shape: (B, N)
        """1 for each token that counts and 0 for padding; without ``prefix`` 0 for prefix tokens too."""
        ones = like.new_ones(len(like), self.n_tokens) if self.keep is None else self.keep.to(like)
        if not prefix:
            ones[:, : self.prefix] = 0
        return ones

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
        """The form that the user asked for: one of ``"grid"``, ``"tokens"``, ``"pixels"``."""
        relevance = self.silence_padding(relevance)
        if output == "tokens":
            return relevance
        return self.to_grid(relevance) if output == "grid" else self.to_pixels(relevance)


def placed(
    maps: Tensor,  # shape: (B, C, h, w)
    box: Box,
    size: tuple[int, int],
    mode: str,
) -> Tensor:  # shape: (B, C, H, W)
    """Grids enlarged to the pixels that they cover, in an image of this size; zero elsewhere."""
    top, left, bottom, right = box
    large = F.interpolate(maps, (bottom - top, right - left), mode=mode)
    return F.pad(large, (left, size[1] - right, top, size[0] - bottom))


def check_output(output: str, allowed: tuple[str, ...] = OUTPUTS) -> str:
    """Refuse an unknown output form before any work starts."""
    return one_of("output", output, allowed)


def check_grid(n_tokens: int, grid: tuple[int, int], image_size: tuple[int, int]) -> None:
    """Refuse a grid that does not fit into the sequence (merged or windowed tokens)."""
    if n_tokens < grid[0] * grid[1]:
        raise InputError(
            f"A sequence that holds one token for each of {grid[0]} x {grid[1]} patches.",
            f"{n_tokens} tokens in the blocks for an image of {image_size[0]} x {image_size[1]} pixels",
            "a model whose blocks keep all patches; merged, windowed or dropped tokens are not supported.",
        )
