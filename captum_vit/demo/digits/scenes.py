"""Digit scenes: real handwritten digits on a cluttered canvas, with a mask for each of them.

A scene holds one or several digits of different classes that do not overlap, so it is known which pixels
speak for which class. The digits are the 1,797 scans of the UCI set that scikit-learn bundles; a fixed split
keeps 500 of them for testing, and these never enter a training scene.

Every step below works on all scenes at once; ``B`` counts scenes, ``K`` digits of a scene, ``S`` = 64 is the
side of the canvas and ``T`` = 32 that of a digit's tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from captum_vit.errors import OptionError
from captum_vit.extras import extra
from captum_vit.options import integer, integer_or_none, one_of, shown, two_integers

CANVAS = 64  # side of a scene
TILE = 32  # side of the tile in which one digit is drawn; four of them fill the canvas
HEIGHTS = (18.0, 26.0)  # how tall the digits are
CHUNK = 256  # scenes drawn at once: bounds the memory

MEAN = STD = 0.5
MAX_DIGITS = (CANVAS // TILE) ** 2


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes and what is true of them."""

    pixels: Tensor  # shape: (B, 3, 64, 64), in [0, 1]
    digits: Tensor  # shape: (B, K), classes present, -1 where a scene has fewer
    masks: Tensor  # shape: (B, K, 64, 64), bool, the stroke pixels of each digit
    label: Tensor  # shape: (B,), one of the digits at random, as a single-label data set has it

    @property
    def images(self) -> Tensor:
        """The pixels normalised for the model, (B, 3, 64, 64) in [-1, 1]."""
        return (self.pixels - MEAN) / STD

    def __len__(self) -> int:
        return len(self.pixels)


def digit_scenes(
    n_scenes: int,
    n_digits: int | tuple[int, int] = 2,
    split: str = "test",
    seed: int = 0,
    *,
    without: int | None = None,
    digits: Tensor | None = None,  # shape: (B, K)
) -> Scenes:
    """Draw scenes; the same arguments give the same scenes, and no global random state is touched.

    Args:
        n_scenes: how many scenes.
        n_digits: digits in each scene, at most 4; a pair ``(low, high)`` draws the number for each scene.
        split: ``"train"`` or ``"test"``: which scans the digits are taken from.
        seed: of the private generator.
        without: leave the digit at this position unwritten, and everything else as it was. What a model then
            answers differently is what that digit's strokes did, known without any method of explanation.
        digits: the digits to write, K in each scene, in place of random ones. Another digit at one position leaves
            everything else as it was, its place and the ground among it.

    Example::

        >>> scenes = digit_scenes(8, n_digits=2)
        >>> scenes.images.shape, scenes.masks.shape
        (torch.Size([8, 3, 64, 64]), torch.Size([8, 2, 64, 64]))
    """
    low, high = two_integers("n_digits", n_digits, hint="n_digits=2.") or (0, 0)
    integer("n_scenes", n_scenes, hint="n_scenes=20.")
    integer("seed", seed, least=None, hint="seed=0.")
    integer_or_none("without", without, least=0, hint="without=None, which writes all.")
    if not 1 <= low <= high <= MAX_DIGITS:
        wanted = f"`n_digits` from 1 to {MAX_DIGITS}, or a pair (low, high) of such."
        raise OptionError(wanted, shown(n_digits), "n_digits=2.")
    if without is not None and without >= high:
        wanted = f"`without` must be the position of a digit, 0 to {high - 1}."
        raise OptionError(wanted, shown(without), "without=None, which writes all.")
    if digits is not None and (
        digits.shape != (n_scenes, high) or low != high or bool(digits.clamp(0, 9).ne(digits).any())
    ):
        wanted = f"`digits` from 0 to 9, of the shape ({n_scenes}, K), for n_digits=K."
        raise OptionError(wanted, f"the shape {tuple(digits.shape)}, n_digits={n_digits}", "digits=None, at random.")
    generator = Generator().manual_seed(seed)
    starts = range(0, n_scenes, CHUNK)
    given = [None] * len(starts) if digits is None else digits.split(CHUNK)
    parts = [
        _draw(min(CHUNK, n_scenes - start), low, high, split, generator, without, chosen)
        for start, chosen in zip(starts, given, strict=True)
    ]
    return Scenes(*(torch.cat(field) for field in zip(*parts, strict=True)))


@lru_cache(maxsize=1)
def digit_split() -> dict[str, Tensor]:
    """Indices into ``load_digits()``: 1,297 to train on, 500 to test on, stratified; always the same."""
    with extra("demo"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

    classes = load_digits().target
    train, test = train_test_split(range(len(classes)), test_size=500, stratify=classes, random_state=0)
    return {"train": torch.tensor(sorted(train)), "test": torch.tensor(sorted(test))}


def choose_scans(classes: Tensor, split: str, generator: Generator) -> Tensor:
    """One scan of the split for each wanted class: indices into ``load_digits()``, shaped as ``classes``."""
    pools, sizes = _pools(split)
    position = (torch.rand(classes.shape, generator=generator) * sizes[classes]).long()
    return pools[classes, position]


@lru_cache(maxsize=2)
def _pools(split: str) -> tuple[Tensor, Tensor]:
    """The split's scans by class: indices (10, longest), padded with -1, and how many there are, (10,)."""
    with extra("demo"):
        from sklearn.datasets import load_digits

    one_of("split", split, digit_split())
    indices = digit_split()[split]
    classes = torch.from_numpy(load_digits().target)[indices]
    pools = [indices[classes == digit] for digit in range(10)]
    return torch.nn.utils.rnn.pad_sequence(pools, True, -1), torch.tensor([len(pool) for pool in pools])


@lru_cache(maxsize=1)
def _glyphs() -> Tensor:
    """All scans with an empty rim, smoothly enlarged: (1797, 1, 40, 40), ink in about [0, 1]."""
    with extra("demo"):
        from sklearn.datasets import load_digits

    scans = torch.from_numpy(load_digits().images / 16).float()[:, None]
    return F.interpolate(F.pad(scans, (1, 1, 1, 1)), scale_factor=4, mode="bicubic")


def _draw(
    n: int, low: int, high: int, split: str, generator: Generator, without: int | None, digits: Tensor | None
) -> tuple[Tensor, ...]:
    """The fields of :class:`Scenes` for ``n`` scenes of ``low`` to ``high`` digits."""
    count = torch.randint(low, high + 1, (n,), generator=generator)
    present = torch.arange(high) < count[:, None]  # shape: (B, K)
    drawn = torch.rand(n, 10, generator=generator).argsort(1)[:, :high]
    classes = drawn if digits is None else digits
    heights = _uniform((n, high), *HEIGHTS, generator)
    boxes = (1.2 * heights).ceil()  # a turned digit is larger than an upright one
    corners = _layout(boxes, present, generator)

    scans = _glyphs()[choose_scans(classes, split, generator).flatten()]
    tiles = _write(scans, heights.flatten(), boxes.flatten(), generator).view(n, high, TILE, TILE)
    written = present & (torch.arange(high) != without) if without is not None else present
    ink = _paste(tiles * written[..., None, None], corners)  # shape: (B, K, S, S)

    pixels = _paint(ink, generator)
    chosen = (torch.rand(n, generator=generator) * count).long()
    label = classes.gather(1, chosen[:, None])[:, 0]
    return pixels, classes.masked_fill(~written, -1), ink > 0.3, label


def _layout(boxes: Tensor, present: Tensor, generator: Generator, tries: int = 48) -> Tensor:
    """Top left corners (B, K, 2) of square boxes (B, K) that do not overlap.

    The first of many random tries that fits is taken. The last one gives each digit its own quarter of the
    canvas, which always fits.
    """
    n, k = boxes.shape
    sides = boxes[:, None, :, None]
    free = torch.rand(n, tries - 1, k, 2, generator=generator) * (CANVAS - sides)
    quarter = torch.rand(n, MAX_DIGITS, generator=generator).argsort(1)[:, None, :k]
    quarter = TILE * torch.stack([quarter // 2, quarter % 2], dim=-1)
    own = quarter + torch.rand(n, 1, k, 2, generator=generator) * (TILE - sides)
    corners = torch.cat([free, own], dim=1).floor()  # shape: (B, tries, K, 2)

    fits = torch.ones(n, tries, dtype=torch.bool)
    for i in range(k):
        for j in range(i):
            apart = torch.maximum(corners[:, :, i] - corners[:, :, j] - boxes[:, None, j, None],
                                  corners[:, :, j] - corners[:, :, i] - boxes[:, None, i, None])  # fmt: skip
            fits &= (apart >= 0).any(-1) | ~(present[:, i] & present[:, j])[:, None]
    first = fits.float().argmax(1)
    return corners[torch.arange(n), first].long()


def _write(scans: Tensor, heights: Tensor, boxes: Tensor, generator: Generator) -> Tensor:
    """Turn, shear, stretch and bend scans (N, 1, 40, 40) into their boxes, top left in tiles (N, T, T)."""
    n = len(scans)
    angle, shear = _uniform((n,), -0.25, 0.25, generator), _uniform((n,), -0.25, 0.25, generator)
    width = _uniform((n,), 0.8, 1.15, generator)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(n, 2, 2)
    lean = torch.stack([1 / width, shear, torch.zeros(n), torch.ones(n)], -1).view(n, 2, 2)

    pixel = torch.arange(TILE)
    # The scan's own frame, [-1, 1] over ten cells of which the digit fills the middle eight.
    place = (2 * pixel + 1 - boxes[:, None]) / heights[:, None] * 0.8  # shape: (N, T)
    place = torch.stack([place[:, None, :].expand(-1, TILE, -1), place[:, :, None].expand(-1, -1, TILE)], -1)
    grid = (place.flatten(1, 2) @ (lean @ turn).mT).view(n, TILE, TILE, 2)
    bend = 0.06 * torch.randn(n, 2, 5, 5, generator=generator)
    grid += F.interpolate(bend, TILE, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    ink = F.grid_sample(scans, grid, align_corners=False)[:, 0]

    thin, hard = _uniform((n, 1, 1), 0.4, 0.55, generator), _uniform((n, 1, 1), 2.0, 4.0, generator)
    inside = pixel < boxes[:, None]
    return (hard * (ink - thin) + 0.5).clamp(0, 1) * (inside[:, :, None] & inside[:, None, :])


def _paste(tiles: Tensor, corners: Tensor) -> Tensor:
    """Lay tiles (B, K, T, T) on empty canvases at their corners: (B, K, S, S)."""
    n, k = tiles.shape[:2]
    side = CANVAS + TILE  # a tile may reach over the edge, its box does not
    step = torch.arange(TILE)
    rows, columns = corners[..., 0, None] + step, corners[..., 1, None] + step
    where = (rows[..., :, None] * side + columns[..., None, :]).flatten(2)
    canvas = torch.zeros(n, k, side * side).scatter_(2, where, tiles.flatten(2))
    return canvas.view(n, k, side, side)[..., :CANVAS, :CANVAS]


def _paint(ink: Tensor, generator: Generator) -> Tensor:
    """Colour the digits' ink (B, K, S, S) over a soft background with clutter: pixels (B, 3, S, S)."""
    n, k = ink.shape[:2]
    dark = torch.rand(n, 1, generator=generator) < 0.6  # light digits on a dark ground, or the reverse
    ground = _colours(~dark, generator)  # shape: (B, 1, 3)
    canvas = ground.mT[..., None] + _clouds(n, generator)

    strokes = _strokes(n, 3, generator)  # shape: (B, 3, S, S)
    tint = _colours(dark.expand(-1, 3), generator) - ground
    tint = tint * _uniform((n, 3, 1), 0.1, 0.45, generator)
    canvas += torch.einsum("bmhw,bmc->bchw", strokes, tint)

    digits = torch.einsum("bkhw,bkc->bchw", ink, _colours(dark.expand(-1, k), generator))
    canvas = canvas * (1 - ink.sum(1, keepdim=True)) + digits
    noise = _uniform((n, 1, 1, 1), 0.01, 0.05, generator)
    canvas += noise * torch.randn(canvas.shape, generator=generator)
    return canvas.clamp_(0, 1)


def _clouds(n: int, generator: Generator, cells: int = 5) -> Tensor:
    """Soft random fields (B, 3, S, S): coarse noise, spread by a Gaussian along both sides."""
    centre = torch.linspace(0, CANVAS, cells)
    spread = (-0.5 * ((torch.arange(CANVAS)[:, None] - centre) / (0.7 * CANVAS / cells)) ** 2).exp()
    return spread @ (0.1 * torch.randn(n, 3, cells, cells, generator=generator)) @ spread.T


def _strokes(n: int, m: int, generator: Generator, beads: int = 12) -> Tensor:
    """Random strokes (B, m, S, S) in [0, 1]: strings of soft beads along quadratic Bezier curves."""
    start = _uniform((n, m, 1, 2), 0, CANVAS, generator)
    ends = start + 9 * torch.randn(n, m, 2, 2, generator=generator)
    t = torch.linspace(0, 1, beads)[:, None]
    path = (1 - t) ** 2 * start + 2 * t * (1 - t) * ends[:, :, :1] + t**2 * ends[:, :, 1:]
    width = _uniform((n, m, 1, 1, 1), 0.8, 1.3, generator)
    # A round bead is the product of one profile down the rows and one along the columns.
    profile = (-0.5 * ((torch.arange(CANVAS) - path[..., None]) / width) ** 2).exp()
    rows, columns = profile.unbind(-2)  # shapes: (B, m, beads, S)
    return (rows.mT @ columns).clamp_(max=1)


def _colours(light: Tensor, generator: Generator) -> Tensor:
    """Random colours (B, K, 3), bright where ``light`` (B, K) says so and deep elsewhere."""
    hue = torch.rand((*light.shape, 1), generator=generator) + torch.arange(3) / 3
    pure = 0.5 + 0.5 * (2 * torch.pi * hue).cos()
    fade = torch.where(light[..., None], 0.45, 0.75) * torch.rand((*light.shape, 1), generator=generator)
    value = torch.where(light[..., None], 0.85, 0.18) + _uniform((*light.shape, 1), 0, 0.15, generator)
    return value * (1 - fade + fade * pure)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
