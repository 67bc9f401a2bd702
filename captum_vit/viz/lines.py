"""Words on coloured ground set in lines, as a matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.textpath import TextToPath
from matplotlib.transforms import Affine2D, Transform
from torch import Tensor

from captum_vit.viz.colours import SIGNED
from captum_vit.viz.pieces import Piece

INK, QUIET = "#222222", "#6b6b6b"
_DEEP = 0.5  # the darkest ground, as a place in the colours: black words stay legible on it
_FONT, _SMALL = FontProperties(size=11), FontProperties(size=8.5)
_LINE, _SPACE, _MARGIN, _HEIGHT, _AIR = 23.0, 4.0, 6.0, 17.0, 2.5  # points


def ground(strength: Tensor) -> str:
    """The colour behind a word, light enough for black letters."""
    return str(to_hex(SIGNED((1 + _DEEP * strength.item()) / 2)))


def figure_of(
    pieces: Sequence[Piece],
    strength: Tensor,  # shape: (R, W)
    lines: Sequence[int],
    rows: Sequence[str] | None,
    signed: bool,
    width: float,
    beside: bool = False,
) -> Figure:
    """A row after the other, each broken at ``width`` inches and where another text begins.

    The label of a row stands above it, or ``beside`` it, which makes a lower page.
    """
    widest = max((_width(label, _SMALL) for label in rows or ()), default=0.0)
    page = _Page(72 * width, _MARGIN + (widest + 3 * _SPACE if beside and rows else 0))
    for row in range(len(strength)):
        if rows is not None:
            page.write(_MARGIN, rows[row], QUIET, _SMALL)
            page.depth += 0 if beside else 0.8 * _LINE
        page.flow(pieces, strength[row], lines)
        page.depth += _LINE / (4 if beside else 2)
    page.legend(signed)
    return page.finished()


class _Page:
    """A figure that grows downward; places are points from its top left corner."""

    def __init__(self, width: float, left: float) -> None:
        self.width, self.left, self.depth = width, left, _MARGIN / 2
        self.figure = Figure(figsize=(width / 72, 1), dpi=160, facecolor="white")
        FigureCanvasAgg(self.figure)

    def flow(self, pieces: Sequence[Piece], strength: Tensor, lines: Sequence[int]) -> None:
        """Set words one by one; the depth is below them afterwards."""
        across = self.left
        for i, piece in enumerate(pieces):
            follows = i + 1 < len(pieces) and pieces[i + 1].glued and lines[i + 1] == lines[i]
            glued = piece.glued and i > 0 and lines[i - 1] == lines[i]
            span = _width(piece.text, _FONT) + (0 if glued else _AIR) + (0 if follows else _AIR)
            across += 0 if glued or across == self.left else _SPACE
            if i > 0 and (lines[i - 1] != lines[i] or (across + span > self.width - _MARGIN and across > self.left)):
                across, self.depth = self.left, self.depth + _LINE
            self._ground(across, span, ground(strength[i]), round_left=not glued, round_right=not follows)
            self.write(across + (0 if glued else _AIR), piece.text)
            across += span
        self.depth += _LINE

    def _ground(self, across: float, span: float, colour: str, round_left: bool, round_right: bool) -> None:
        """A chip, with straight sides where a word goes on."""
        top = -self.depth - (_LINE + _HEIGHT) / 2
        style = "round,pad=0,rounding_size=3"
        look: dict[str, Any] = {"facecolor": colour, "edgecolor": "none", "linewidth": 0}
        self.figure.add_artist(FancyBboxPatch((across, top), span, _HEIGHT, boxstyle=style, **look))
        for straight, start in ((not round_left, across), (not round_right, across + span / 2)):
            if straight:
                self.figure.add_artist(Rectangle((start, top), span / 2, _HEIGHT, **look))

    def write(self, across: float, word: str, colour: str = INK, font: FontProperties = _FONT) -> None:
        place: dict[str, Any] = {"va": "center_baseline", "parse_math": False}
        self.figure.text(across, -self.depth - _LINE / 2, word, fontproperties=font, color=colour, **place)

    def legend(self, signed: bool) -> None:
        """What the colours mean."""
        before, after = ("against", "for") if signed else ("little", "much")
        across = self.left
        self.write(across, before, QUIET, _SMALL)
        across += _width(before, _SMALL) + _SPACE
        for x in torch.linspace(-1.0 if signed else 0.0, 1.0, 24):
            at = (across, -self.depth - _LINE / 2 - 3)
            self.figure.add_artist(Rectangle(at, 2.6, 7, facecolor=ground(x), edgecolor="none", linewidth=0))
            across += 2.5
        self.write(across + _SPACE, after, QUIET, _SMALL)
        self.depth += _LINE

    def finished(self) -> Figure:
        """With its height known, everything is put in its place."""
        self.figure.set_size_inches(self.width / 72, self.depth / 72)
        for artist in [*self.figure.texts, *self.figure.artists, *self.figure.patches]:
            if artist is not self.figure.patch:
                artist.set_transform(_from_top(self.figure, self.depth))
        return self.figure


def _width(word: str, font: FontProperties) -> float:
    """Points that a word takes."""
    return float(TextToPath().get_text_width_height_descent(word, font, ismath=False)[0])


def _from_top(figure: Figure, depth: float) -> Transform:
    """Points to the right and (negative) downward of the top left corner, to pixels."""
    return Affine2D().translate(0, depth).scale(1 / 72) + figure.dpi_scale_trans
