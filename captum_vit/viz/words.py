"""Maps over text: words on coloured ground, as HTML and as a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextToPath
from matplotlib.transforms import Affine2D, Transform
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.viz.colours import SIGNED, finite, scale_of

INK, FAINT = "#222222", "#767676"
_DEEP = 0.5  # the darkest ground, as a place in the colours: black words stay legible on it
_FONT = FontProperties(size=11)
_LINE, _SPACE = 22.0, 4.0  # points
_STARTS, _ENDS, _INSIDE = (
    ("Ġ", "▁"),
    "</w>",
    "##",
)  # how vocabularies mark a word


def text(
    tokens: Sequence[str],
    scores: Tensor,  # shape: (T,), or (R, T) for R rows
    *,
    rows: Sequence[str] | None = None,
    percentile: float = 100.0,
    signed: bool | None = None,
) -> TokenText:
    """Words on coloured ground: orange for, blue against, the deeper the stronger.

    Word pieces are set together as they read (``##``, ``Ġ``, ``▁`` and ``</w>`` are understood). Everything
    that comes from the tokens is escaped.

    Args:
        tokens: T tokens, as the tokenizer names them.
        scores: their relevance; a row per target.
        rows: R labels.
        percentile: relevance beyond it is drawn at full colour; 100 (nothing is clipped) suits few tokens.
        signed: diverge from zero; None looks for negative values, row by row.

    Returns:
        :class:`TokenText`: ``.html`` is a string, ``.figure()`` a matplotlib figure; notebooks show it.

    Raises:
        InputError: scores that are not one-to-one with the tokens, NaN or infinite; no tokens.

    Example:
        >>> text(["un", "##able", "<b>"], torch.tensor([0.1, 0.9, -0.5])).html.count("&lt;b&gt;")
        1
    """
    scores = finite(scores)
    scores = scores[None] if scores.dim() == 1 else scores
    if not len(tokens) or scores.dim() != 2 or scores.shape[1] != len(tokens) or not len(scores):
        raise InputError(
            f"One score for each of {len(tokens)} tokens (at least one): (T,), or (R, T).",
            f"scores of shape {tuple(scores.shape)}",
            "the attributions of one text, with the tokens of the same `input_ids`, special tokens included.",
        )
    if rows is not None and len(rows) != len(scores):
        raise InputError(f"One label for each of {len(scores)} rows.", f"{len(rows)} labels")
    grounds = [
        scale.strength(row)
        for row in scores
        for scale in [scale_of(row, percentile=percentile, signed=signed)]
    ]
    return TokenText(tuple(tokens), scores, torch.stack(grounds), tuple(rows) if rows is not None else None)


@dataclass(frozen=True)
class TokenText:
    """Tokens and their relevance, ready to be shown."""

    tokens: tuple[str, ...]
    scores: Tensor  # shape: (R, T)
    strength: Tensor  # shape: (R, T), in [-1, 1]
    rows: tuple[str, ...] | None = None

    @property
    def html(self) -> str:
        """A self-contained ``<div>``: no scripts or style sheets, tokens escaped, values in tooltips."""
        lines = "".join(self._line(row) for row in range(len(self.scores)))
        style = f"font:15px/2 system-ui,sans-serif;color:{INK};background:#fff;padding:4px 8px"
        return f'<div style="{style}">{lines}</div>'

    def _repr_html_(self) -> str:
        return self.html

    def _line(self, row: int) -> str:
        label = (
            "" if self.rows is None else f'<span style="color:{FAINT}">{escape(self.rows[row])}</span>&emsp;'
        )
        return f'<p style="margin:0 0 6px">{label}{"".join(self._spans(row))}</p>'

    def _spans(self, row: int) -> Iterator[str]:
        for (word, glued), score, strength in zip(
            pieces(self.tokens), self.scores[row], self.strength[row], strict=True
        ):
            style = f"background:{_ground(strength)};padding:2px 3px;border-radius:3px"
            space = "" if glued else " "
            yield f'{space}<span title="{score.item():.4g}" style="{style}">{escape(word)}</span>'

    def figure(self, width: float = 6.5) -> Figure:
        """The same as a matplotlib figure.

        Args:
            width: in inches; lines break there.
        """
        figure = Figure(figsize=(width, 1), dpi=160, facecolor="white")
        FigureCanvasAgg(figure)
        depth = 0.0
        for row in range(len(self.scores)):
            if self.rows is not None:
                _write(figure, _SPACE, depth, self.rows[row], colour=FAINT)
                depth += _LINE
            depth = self._flow(figure, row, depth, 72 * width) + _LINE / 2
        figure.set_size_inches(width, depth / 72)
        for artist in [
            *figure.texts,
            *figure.artists,
        ]:  # in points from the top; now the height is known
            artist.set_transform(_from_top(figure, depth))
        return figure

    def _flow(self, figure: Figure, row: int, depth: float, width: float) -> float:
        """Set one row word by word, breaking lines; returns the depth below it."""
        across = _SPACE
        for (word, glued), strength in zip(pieces(self.tokens), self.strength[row], strict=True):
            span = _width(word)
            across += 0 if glued else _SPACE
            if across + span > width - _SPACE and across > 2 * _SPACE:
                across, depth = 2 * _SPACE, depth + _LINE
            ground = FancyBboxPatch(
                (across, -depth - 16),
                span,
                14,
                boxstyle="round,pad=0,rounding_size=2",
                facecolor=_ground(strength),
                edgecolor="none",
            )
            figure.add_artist(ground)
            _write(figure, across, depth, word)
            across += span
        return depth + _LINE


def pieces(tokens: Sequence[str]) -> list[tuple[str, bool]]:
    """Each token as it reads, and whether it continues the word before it."""
    marks_starts = any(token.startswith(_STARTS) for token in tokens)
    marks_ends = any(token.endswith(_ENDS) for token in tokens)
    found: list[tuple[str, bool]] = []
    for token, before in zip(tokens, ["", *tokens], strict=False):
        special = _special(token) or _special(before)
        if marks_starts:
            glued = not token.startswith(_STARTS) and not special and bool(before)
        elif marks_ends:
            glued = not before.endswith(_ENDS) and not special and bool(before)
        else:
            glued = token.startswith(_INSIDE) and len(token) > len(_INSIDE)
        found.append((_word(token, glued), glued))
    return found


def _special(token: str) -> bool:
    """[CLS], <s>, <|endoftext|>: tokens that are no part of a word."""
    return len(token) > 2 and (token[0] + token[-1]) in ("[]", "<>")


def _word(token: str, glued: bool) -> str:
    if glued and token.startswith(_INSIDE):
        return token.removeprefix(_INSIDE)
    return token.removesuffix(_ENDS).lstrip("Ġ▁") or "␣"


def _ground(strength: Tensor) -> str:
    return to_hex(SIGNED((1 + _DEEP * strength.item()) / 2))


def _width(word: str) -> float:
    """Points that a word takes, with a little air."""
    return TextToPath().get_text_width_height_descent(word, _FONT, ismath=False)[0] + 5


def _write(figure: Figure, across: float, depth: float, word: str, colour: str = INK) -> None:
    figure.text(
        across + 2.5,
        -depth - 9,
        word,
        fontproperties=_FONT,
        color=colour,
        va="center_baseline",
        parse_math=False,
    )


def _from_top(figure: Figure, depth: float) -> Transform:
    """Points to the right and (negative) downward of the top left corner, to pixels."""
    return Affine2D().translate(0, depth).scale(1 / 72) + figure.dpi_scale_trans
