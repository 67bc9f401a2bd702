"""An explanation of one input: its maps, what they explain, and how it is shown and saved."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from captum_vit.errors import InputError
from captum_vit.options import boolean, known
from captum_vit.viz.figures import widened, with_dpi
from captum_vit.viz.files import check_target, write_array, write_figure, write_page, write_whole
from captum_vit.viz.marks import Mark
from captum_vit.viz.pictures import panels
from captum_vit.viz.words import TokenText, text

Drawing = Callable[..., Figure]
"""What draws a map over what a model saw: :func:`~captum_vit.viz.film` or one of its kin."""

PICTURES = (".png", ".pdf", ".svg")
SUFFIXES = (*PICTURES, ".html", ".npy")
PANELS = tuple(signature(panels).parameters)[2:]
TEXTS = tuple(signature(text).parameters)[2:]


@dataclass(frozen=True, repr=False)
class Explanation:
    """Maps of one input, one for each target, and what is needed to show them.

    Args:
        maps: (K, h, w) for a picture, (K, T) for a text or samples of a sound, (K, t, h, w) for a video, (K, d, h, w)
            for a volume, (K, t, f) for a spectrogram, on the model's device.
        targets: the K outputs that were explained.
        labels: their names.
        scores: the model's score for each: a probability for classifiers, else the raw output.
        method: its name.
        image: (3, H, W) in [0, 1], what the model saw, if it is a picture.
        signal: what it saw, if it is a video, a sound or a volume.
        drawing: what draws a map over that: :func:`~captum_vit.viz.film` or one of its kin.
        mark: what a dense target is about.
        tokens: T tokens; None for a picture.
        segments: of a pair of texts, which one each token belongs to.
        special: whether the tokens that frame a text are shown.
        words: whether the pieces of a word are shown as one.
        many: whether a list of targets was given.
        probabilities: whether the scores are probabilities.
        word_ids: which word each token is a piece of, as a fast tokenizer has it; None: by the tokens' own marks.
    """

    maps: Tensor
    targets: list[Any]
    labels: list[str]
    scores: list[float]
    method: str
    image: Tensor | None = None
    signal: Tensor | None = None
    drawing: Drawing | None = None
    mark: Mark | None = None
    tokens: Sequence[str] | None = None
    segments: Sequence[int] | None = None
    special: bool = True
    words: bool = False
    many: bool = False
    probabilities: bool = False
    word_ids: Sequence[int | None] | None = None

    @property
    def _of_text(self) -> bool:
        return self.image is None and self.signal is None

    @property
    def map(self) -> Tensor:
        """(h, w) or (T,); with a leading K if a list of targets was given."""
        return self.maps if self.many else self.maps[0]

    def show(self, *, width: float | None = None, dpi: float | None = None, **style: Any) -> Figure:
        """A matplotlib figure that pyplot does not know; notebooks display it.

        Args:
            width: of the figure, in inches; by default that of its panels, or 6.5 for a text.
            dpi: pixels for each inch.
            style: for pictures, keywords of :func:`captum_vit.viz.panels`: ``colour_bar=True`` for instance; for
                texts, those of :func:`captum_vit.viz.text`; for others those of :func:`captum_vit.viz.film`,
                :func:`~captum_vit.viz.spectrogram`, :func:`~captum_vit.viz.wave` or :func:`~captum_vit.viz.slices`.

        Raises:
            OptionError: an unknown keyword, a width or dpi that is no positive number, or too many pixels.
        """
        if self.signal is not None and self.drawing is not None:
            figure = self._drawn(self.signal, self.drawing, width, style)
        elif self.image is None:
            written = self.text(**style)
            figure = written.figure() if width is None else written.figure(width)
        else:
            known("show", style, PANELS)
            rows = [_caption(label, score) for label, score in zip(self.labels, self._said(), strict=True)]
            figure = panels(
                self.image, {self.method: self.maps}, width=width, **{"rows": rows, "mark": self.mark, **style}
            )
        return figure if dpi is None else with_dpi(figure, dpi)

    def _drawn(self, signal: Tensor, drawing: Drawing, width: float | None, style: dict[str, Any]) -> Figure:
        """A film, a sound or a volume: one map, with what it explains above."""
        if len(self.maps) != 1:
            hint = "explanation.maps[k] and captum_vit.viz.film, spectrogram, wave or slices, for each of them."
            raise InputError("One target, to be drawn over time or depth.", f"{len(self.maps)} targets", hint)
        known("show", style, tuple(signature(drawing).parameters)[2:])
        title = f"{self.method}: {self.labels[0].split(', ')[0]} ({self._said()[0]})"
        figure = drawing(signal, self.maps[0], **{"title": title, **style})
        return figure if width is None else widened(figure, width)

    def save(
        self, path: str | PathLike[str], overwrite: bool = True, *, dpi: float | None = None, **style: Any
    ) -> Path:
        """Write a picture (PNG, PDF, SVG), a page (HTML, texts only) or the numbers (NPY, ``.map``).

        The file appears whole or not at all.

        Args:
            path: of the file.
            overwrite: whether a file of that name is replaced; else it is refused.
            dpi: pixels for each inch, of a picture; 160 by default, 100 for a text.
            style: keywords of :meth:`show`, ``width=8`` for instance; of :meth:`text` for a page.

        Raises:
            InputError: another kind of file, a missing folder, or an existing file if ``overwrite`` is False.
            OptionError: a keyword that has no meaning for this kind of file, or a value out of range.
        """
        kinds = SUFFIXES if self._of_text else (*PICTURES, ".npy")
        checked = check_target(path, kinds, boolean("overwrite", overwrite))
        kind = checked.suffix.lower()
        if kind not in PICTURES and dpi is not None:
            style["dpi"] = dpi
        if kind == ".npy":
            known("the numbers in .npy", style, ())
            return write_whole(checked, partial(write_array, self.map))
        if kind == ".html":
            return write_whole(checked, partial(write_page, self.text(**style).html))
        return write_whole(checked, partial(write_figure, self.show(dpi=dpi, **style), kind[1:]))

    def __repr__(self) -> str:
        listed = ", ".join(f"{label} ({said})" for label, said in zip(self.labels, self._said(), strict=True))
        return f"Explanation by {self.method}, {tuple(self.map.shape)}: {listed}"

    def _repr_html_(self) -> str | None:
        return self.text().html if self._of_text else None

    def _repr_png_(self) -> bytes | None:
        if self._of_text:
            return None
        buffer = BytesIO()
        write_figure(self.show(), "png", buffer)
        return buffer.getvalue()

    def text(self, **style: Any) -> TokenText:
        """The words with their relevance, of a text: ``.html``, ``.figure()``, and Captum's ``.records()``.

        Args:
            style: keywords of :func:`captum_vit.viz.text`: ``words=True``, ``special=False``, ``percentile=95``.
        """
        rows = [f"{label} · {said}" for label, said in zip(self.labels, self._said(), strict=True)]
        known("text", style, TEXTS)
        usual: dict[str, Any] = {"rows": rows, "special": self.special, "words": self.words}
        usual |= {"segments": self.segments, "word_ids": self.word_ids}
        return text(self.tokens or (), self.maps, **{**usual, **style})

    def _said(self) -> list[str]:
        """The scores in words."""
        return [f"p = {score:.2g}" if self.probabilities else f"{score:.3g}" for score in self.scores]


def _caption(label: str, said: str) -> str:
    """The first of several synonyms, on short lines, above the score."""
    return "\n".join([*textwrap.wrap(label.split(", ")[0], 16), said])
