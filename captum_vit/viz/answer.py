"""An explanation of a generated word: the words of the prompt and the patches of its pictures, and what is apart."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from html import escape
from io import BytesIO
from os import PathLike
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_vit.options import boolean, number
from captum_vit.viz.blending import blend, large
from captum_vit.viz.colours import Scale, scale_of
from captum_vit.viz.figures import WIDEST, with_dpi
from captum_vit.viz.files import check_target, write_array, write_figure, write_page, write_whole
from captum_vit.viz.lines import INK, QUIET
from captum_vit.viz.pieces import Piece, merged, pieces
from captum_vit.viz.strips import raised, strip
from captum_vit.viz.words import TokenText

TEXT, IMAGE, SPECIAL, ASKING, SO_FAR = "words", "image tokens", "special tokens", "asking position", "answer so far"
ROLES = (TEXT, IMAGE, SPECIAL, ASKING, SO_FAR)
"""What a token of a prompt and its answer is."""

SUFFIXES = (".png", ".pdf", ".svg", ".html", ".npy")


@dataclass(frozen=True, repr=False)
class AnswerExplanation:
    """What made a language model generate a word: relevance of the prompt's words, and of its pictures' patches.

    Special tokens and the position that the word is read at gather what the others hold. They have shares of their
    own, and do not set the colours of the words.

    Args:
        relevance: (T,), of the tokens of the prompt and of the answer, in logits.
        tokens: T tokens.
        roles: for each what it is, one of ``ROLES``.
        label: the word that is explained, and the foil.
        score: its score, or its lead over the foil.
        method: its name.
        pictures: (3, H, W) in [0, 1] each, as the model saw them.
        images: (h, w) each, the relevance of their patches.
        constants: what further parts add to the score by name, such as biases.
        complete: whether all parts claim to sum to the score.
        whole_words: whether the pieces of a word are shown as one.
        special: whether special tokens are shown; ``.map`` and ``.shares`` hold them in any case.
    """

    relevance: Tensor
    tokens: Sequence[str]
    roles: Sequence[str]
    label: str
    score: float
    method: str
    pictures: Sequence[Tensor] = ()
    images: Sequence[Tensor] = ()
    constants: Mapping[str, float] = field(default_factory=dict)
    complete: bool = False
    whole_words: bool = True
    special: bool = True

    @property
    def map(self) -> Tensor:
        """(T,), the relevance of all tokens."""
        return self.relevance

    @property
    def words(self) -> list[tuple[str, float]]:
        """The words of the prompt and their relevance."""
        shown, sums = self._pieces()
        return [(p.text, s) for p, s in zip(shown, sums.tolist(), strict=True) if self._role(p) == TEXT]

    @property
    def shares(self) -> dict[str, float]:
        """What each part adds to the score, in logits: pictures, words, each kind of token apart, constants."""
        parts = {"images": sum(float(one.sum()) for one in self.images)} if self.images else {}
        for role in ROLES:
            at = [i for i, one in enumerate(self.roles) if one == role]
            if at and (role != IMAGE or self.relevance[at].any()):
                parts[role] = self.relevance[at].sum().item()
        return {**parts, **self.constants}

    @property
    def residual(self) -> float | None:
        """The score less all shares; None for a method whose relevance does not claim to sum to it."""
        return self.score - sum(self.shares.values()) if self.complete else None

    def text(self) -> TokenText:
        """The words with their relevance. Words alone set the colours; what is apart stands on white."""
        shown, sums = self._pieces()
        is_text = torch.tensor([self._role(piece) == TEXT for piece in shown])
        scale = scale_of(sums[is_text], percentile=100, signed=True) if is_text.any() else Scale(0.0, 0.0, True)
        strength = scale.strength(sums) * is_text
        lines = tuple(int(self._role(piece) == SO_FAR) for piece in shown)
        return TokenText(tuple(shown), sums[None], strength[None], lines, (scale,))

    def show(self, *, width: float = 6.5, dpi: float | None = None) -> Figure:
        """A matplotlib figure that pyplot does not know: pictures and shares above, the words below.

        Args:
            width: of the figure, in inches.
            dpi: pixels for each inch.

        Raises:
            OptionError: a width or dpi that is no positive number.
        """
        number("width", width, above=0, most=WIDEST, hint="width=6.5, in inches.")
        height = 1.5 if self.images else 0.3 + 0.17 * len(self.shares)
        figure = raised(self.text().figure(width), height + 0.3)
        strip(figure, self._title(most=max(int(11 * width) - 25, 8)), self._overlays(), self.shares, height)
        return figure if dpi is None else with_dpi(figure, dpi)

    @property
    def html(self) -> str:
        """A self-contained ``<div>``: pictures, words and shares, without scripts; all text is escaped."""
        pictures = "".join(_img(picture) for picture in self._overlays())
        cell = f"padding:1px 14px 1px 0;color:{QUIET};font-size:13px"
        rows = "".join(
            f'<tr><td style="{cell}">{escape(name)}</td><td style="{cell};text-align:right">{value:+.3g}</td></tr>'
            for name, value in self._listed()
        )
        head = f'<div style="font:16px system-ui,sans-serif;color:{INK};padding:4px 0">{escape(self._title())}</div>'
        return f"<div>{head}{pictures}{self.text().html}<table>{rows}</table></div>"

    def save(
        self, path: str | PathLike[str], overwrite: bool = True, *, width: float = 6.5, dpi: float | None = None
    ) -> Path:
        """Write a picture (PNG, PDF, SVG), a page (HTML) or the relevance of all tokens (NPY).

        The file appears whole or not at all.

        Args:
            path: of the file.
            overwrite: whether a file of that name is replaced; else it is refused.
            width: of a picture, in inches.
            dpi: of a picture, pixels for each inch.

        Raises:
            InputError: another kind of file, a missing folder, or an existing file if ``overwrite`` is False.
        """
        checked = check_target(path, SUFFIXES, boolean("overwrite", overwrite))
        kind = checked.suffix.lower()
        if kind == ".npy":
            return write_whole(checked, partial(write_array, self.relevance))
        if kind == ".html":
            return write_whole(checked, partial(write_page, self.html))
        return write_whole(checked, partial(write_figure, self.show(width=width, dpi=dpi), kind[1:]))

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {value:+.3g}" for name, value in self._listed())
        sign = " =" if self.complete else ";"
        return f"AnswerExplanation by {self.method}: {self.label} ({self.score:.3g}){sign} {shares}"

    def _repr_html_(self) -> str:
        return self.html

    def _listed(self) -> list[tuple[str, float]]:
        residual = self.residual
        return [*self.shares.items(), *([] if residual is None else [("residual", residual)])]

    def _title(self, most: int | None = None) -> str:
        """With the label cut short where it has more letters."""
        fits = most is None or len(self.label) <= most
        label = self.label if fits else f"{self.label[:most]}…"
        return f"{label}   {self.score:.3g}   by {self.method}"

    def _overlays(self) -> list[Tensor]:  # shape of each: (H, W, 3)
        """Each picture under its map, all on one scale."""
        if not self.images:
            return []
        scale = scale_of(*self.images, signed=True)
        drawn = zip(self.pictures, self.images, strict=True)
        return [torch.from_numpy(blend(large(picture), relevance, scale=scale)) for picture, relevance in drawn]

    def _pieces(self) -> tuple[list[Piece], Tensor]:  # shape of the tensor: (W,)
        """What is shown as one, up to the asking position; image tokens are shown as the picture."""
        found = pieces(self.tokens)
        found = merged(found) if self.whole_words else found
        hidden = (IMAGE,) if self.special else (IMAGE, SPECIAL)
        shown = [piece for piece in found if self._role(piece) not in hidden]
        relevance = self.relevance.cpu()
        return shown, torch.tensor([relevance[list(piece.tokens)].sum().item() for piece in shown])

    def _role(self, piece: Piece) -> str:
        """That of its last token: a word that ends at the asking position is not among the words."""
        return self.roles[piece.tokens[-1]]


def _img(rgb: Tensor) -> str:
    """A picture inside of HTML."""
    buffer = BytesIO()
    Image.fromarray((rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy()).save(buffer, "png")
    data = b64encode(buffer.getvalue()).decode()
    return f'<img alt="" style="width:224px;border-radius:6px;margin-right:8px" src="data:image/png;base64,{data}">'
