"""Maps over text: words on coloured ground, as HTML, as a figure, and as Captum's records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import torch
from captum.attr import visualization
from matplotlib.figure import Figure
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.options import number, shown
from captum_vit.viz.colours import Scale, finite, scale_of
from captum_vit.viz.figures import WIDEST
from captum_vit.viz.lines import INK, QUIET, figure_of, ground
from captum_vit.viz.pieces import EDGES, PADDING, Piece, merged, pieces


def text(
    tokens: Sequence[str],
    scores: Tensor,  # shape: (T,), or (R, T) for R rows
    *,
    rows: Sequence[str] | None = None,
    special: bool = True,
    words: bool = False,
    segments: Sequence[int] | None = None,
    word_ids: Sequence[int | None] | None = None,
    percentile: float = 100.0,
    signed: bool | None = None,
) -> TokenText:
    """Words on coloured ground: orange for, blue against, the deeper the stronger.

    Word pieces are set together as they read (``##``, ``Ġ``, ``▁`` and ``</w>`` are understood). The bytes of
    byte-level vocabularies and of ``<0xE2>`` are joined before they are decoded, so the tokens of one character are
    shown as one, with the sum of their relevance. Everything that comes from the tokens is escaped. Padding without
    relevance is left out.

    Args:
        tokens: T tokens, as the tokenizer names them.
        scores: their relevance; a row per target.
        rows: R labels.
        special: show the tokens that frame a text ([CLS], [SEP], <s>, ...). Where they are hidden, colours
            are those of the words only. [MASK] and [UNK] stand for words and stay.
        words: merge the pieces of each word; its relevance is their sum.
        segments: which text each of the T tokens belongs to; each begins a line (sentence pairs).
        word_ids: which word each of the T tokens is a piece of, None for special tokens: ``encoded.word_ids()`` of a
            fast tokenizer. Without them the tokens' marks are used, and punctuation stays by itself.
        percentile: relevance beyond it is drawn at full colour; 100 (nothing is clipped) suits few tokens.
        signed: diverge from zero; None looks for negative values, row by row.

    Returns:
        :class:`TokenText`: ``.html`` is a string, ``.figure()`` a matplotlib figure, ``.records()`` are Captum's;
        notebooks show it.

    Raises:
        InputError: scores, segments or word ids that are not one-to-one with the tokens, NaN or infinite; no tokens,
            or none that are shown.

    Example:
        >>> text(["un", "##able", "<b>"], torch.tensor([0.1, 0.9, -0.5])).html.count("&lt;b&gt;")
        1
    """
    scores = finite(scores)
    scores = scores[None] if scores.dim() == 1 else scores
    _check(tokens, scores, rows, {"segment": segments, "word id": word_ids})
    shown = [
        piece for piece in pieces(tokens, word_ids) if not _hidden(tokens[piece.tokens[0]], piece, scores, special)
    ]
    shown = merged(shown) if words else shown
    if not shown:
        raise InputError("A token that is shown.", f"{len(tokens)} tokens, all of them special", "special=True.")
    sums = torch.stack([scores[:, list(piece.tokens)].sum(1) for piece in shown], 1)
    scales = [scale_of(row, percentile=percentile, signed=signed) for row in sums]
    strength = torch.stack([scale.strength(row) for scale, row in zip(scales, sums, strict=True)])
    lines = tuple(0 if segments is None else segments[piece.tokens[0]] for piece in shown)
    labels = tuple(rows) if rows is not None else None
    return TokenText(tuple(shown), sums, strength, lines, tuple(scales), labels)


@dataclass(frozen=True)
class TokenText:
    """Words and their relevance, ready to be shown.

    Args:
        pieces: W tokens or words as they read.
        scores: their relevance, a row per target.
        strength: the place of each in the colours.
        lines: which text each piece belongs to.
        scales: what the colours of each row stand for.
        rows: R labels.
    """

    pieces: tuple[Piece, ...]
    scores: Tensor  # shape: (R, W)
    strength: Tensor  # shape: (R, W), in [-1, 1]
    lines: tuple[int, ...]
    scales: tuple[Scale, ...]
    rows: tuple[str, ...] | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """What is shown, piece by piece."""
        return tuple(piece.text for piece in self.pieces)

    @property
    def html(self) -> str:
        """A self-contained ``<div>``: no scripts or style sheets, tokens escaped, values in tooltips."""
        lines = "".join(self._row(row) for row in range(len(self.scores)))
        signed = any(scale.signed for scale in self.scales)
        style = (
            f"font:16px/1.9 system-ui,sans-serif;color:{INK};background:#fff;padding:12px 18px;max-width:46em;"
            "border:1px solid #e3e3de;border-radius:10px"
        )
        return f'<div style="{style}">{lines}{_legend(signed)}</div>'

    def _repr_html_(self) -> str:
        return self.html

    def figure(self, width: float = 6.5, beside: bool = False) -> Figure:
        """The same as a matplotlib figure.

        Args:
            width: in inches; lines break there.
            beside: the label of a row stands at its left, not above it.
        """
        number("width", width, above=0, most=WIDEST, hint="width=6.5, in inches.")
        signed = any(scale.signed for scale in self.scales)
        return figure_of(self.pieces, self.strength, self.lines, self.rows, signed, width, beside)

    def records(
        self,
        pred_prob: float = float("nan"),
        pred_class: Any = "",
        true_class: Any = "",
        attr_class: Any = "",
        convergence_score: float = float("nan"),
    ) -> list[visualization.VisualizationDataRecord]:
        """One record per row for Captum's ``visualize_text``, which colours values in [-1, 1].

        Words and classes are escaped, since Captum writes them into its page as they are. Without
        ``attr_class`` a row's label takes its place. ``attr_score`` is the sum of the relevance shown.
        """
        words = [escape(word) for word in self.words]
        return [
            visualization.VisualizationDataRecord(
                word_attributions=self.strength[row],
                pred_prob=pred_prob,
                pred_class=_escaped(pred_class),
                true_class=_escaped(true_class),
                attr_class=_escaped(attr_class or (self.rows[row] if self.rows else "")),
                attr_score=self.scores[row].sum().item(),
                raw_input_ids=words,
                convergence_score=convergence_score,
            )
            for row in range(len(self.scores))
        ]

    def _row(self, row: int) -> str:
        label = ""
        if self.rows is not None:
            label = f'<div style="font-size:13px;color:{QUIET};margin-top:4px">{escape(self.rows[row])}</div>'
        starts = [i for i, line in enumerate(self.lines) if i == 0 or line != self.lines[i - 1]]
        paragraphs = (
            f'<p style="margin:0 0 4px">{"".join(self._spans(row, start, end))}</p>'
            for start, end in pairwise([*starts, len(self.lines)])
        )
        return label + "".join(paragraphs)

    def _spans(self, row: int, start: int, end: int) -> Iterator[str]:
        for i in range(start, end):
            glued = self.pieces[i].glued and i > start
            left = "0" if glued else "4px"
            right = "0" if i + 1 < end and self.pieces[i + 1].glued else "4px"
            style = (
                f"background:{ground(self.strength[row, i])};padding:3px {right} 3px {left};"
                f"border-radius:{left} {right} {right} {left}"
            )
            value, word = f"{self.scores[row, i].item():.4g}", escape(self.pieces[i].text)
            yield f'{"" if glued or i == start else " "}<span title="{value}" style="{style}">{word}</span>'


def _check(
    tokens: Sequence[str], scores: Tensor, rows: Sequence[str] | None, each: Mapping[str, Sequence[int | None] | None]
) -> None:
    for name, given in (("tokens", tokens), ("rows", rows or ())):
        if isinstance(given, str) or not all(isinstance(one, str) for one in given):
            hint = "tokenizer.convert_ids_to_tokens(ids) for numbers."
            raise InputError(f"`{name}` must be a list of strings.", shown(given), hint)
    if not len(tokens) or scores.dim() != 2 or scores.shape[1] != len(tokens) or not len(scores):
        raise InputError(
            f"One score for each of {len(tokens)} tokens (at least one): (T,), or (R, T).",
            f"scores of shape {tuple(scores.shape)}",
            "the attributions of one text, with the tokens of the same `input_ids`, special tokens included.",
        )
    if rows is not None and len(rows) != len(scores):
        raise InputError(f"One label for each of {len(scores)} rows.", f"{len(rows)} labels", "rows=None for none.")
    for name, numbers in each.items():
        if numbers is not None and len(numbers) != len(tokens):
            wanted, hint = f"One {name} for each of {len(tokens)} tokens.", f"{name.replace(' ', '_')}s=None for none."
            raise InputError(wanted, f"{len(numbers)} {name}s", hint)


def _hidden(token: str, piece: Piece, scores: Tensor, special: bool) -> bool:
    """Padding without relevance; and what frames a text, if that is not wanted."""
    if token in PADDING:
        return not special or not scores[:, list(piece.tokens)].any()
    return not special and token in EDGES


def _legend(signed: bool) -> str:
    ends = ("against", "for") if signed else ("little", "much")
    colours = ",".join(ground(torch.tensor(x)) for x in torch.linspace(-1.0 if signed else 0.0, 1.0, 9).tolist())
    bar = f"display:inline-block;width:72px;height:9px;border-radius:4px;background:linear-gradient(90deg,{colours})"
    style = f"font-size:12px;color:{QUIET};margin-top:6px"
    return f'<div style="{style}">{ends[0]}&ensp;<span style="{bar}"></span>&ensp;{ends[1]}</div>'


def _escaped(name: Any) -> Any:
    return escape(name) if isinstance(name, str) else name
