"""The demonstration: data with known answers, explained by every method, and marked. One section for each kind of data.

Sections share :mod:`quantus_metrics.demo.marks`. A section is a function ``run(out, n, seed, overwrite)`` that explains
``n`` inputs, prints a table of marks, writes its files at ``out`` and returns the marks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from captum_vit.options import integer
from captum_vit.viz.files import check_target
from quantus_metrics.demo import captions, digits, facts, reviews
from quantus_metrics.demo.marks import Mark

PICTURES = {".png", ".pdf", ".svg"}


class Section(NamedTuple):
    """A part of the demonstration."""

    run: Callable[[Path, int, int, bool], list[Mark]]
    about: str
    picture: str  # what its picture is called
    unit: str  # what there are n of
    n: int  # by default
    page: bool = False  # whether an HTML page lies beside the picture


SECTIONS = {
    "digits": Section(digits.run, "two-digit scenes, explained for both digits", "explanations", "scenes", 20),
    "reviews": Section(reviews.run, "reviews, explained for what they say", "reviews", "reviews", 20, page=True),
    "captions": Section(
        captions.run, "scenes, explained for texts that name a digit", "captions", "captions", 15, page=True
    ),
    "facts": Section(facts.run, "facts, explained for the answer to a question", "facts", "prompts", 20, page=True),
}


def run(
    out: Path = Path("explanations.png"),
    sections: Sequence[str] = tuple(SECTIONS),
    n: Mapping[str, int] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, list[Mark]]:
    """Run sections one after the other; the marks of each.

    Args:
        out: the picture of the digits; the files of other sections lie beside it, under their own names.
        sections: which ones.
        n: how many scenes, reviews, ... for a section; its own default otherwise.
        seed: of the data.
        overwrite: replace existing files. What is in the way is found before any work starts.
    """
    for name in sections:
        integer(name, (n or {}).get(name, SECTIONS[name].n), hint=f"{SECTIONS[name].n} {SECTIONS[name].unit}.")
    integer("seed", seed, least=0, hint="seed=0.")
    pictures = {name: _picture(out, name) for name in sections}
    for name, picture in pictures.items():
        check_target(picture, PICTURES, overwrite)
        if SECTIONS[name].page:
            check_target(picture.with_suffix(".html"), {".html"}, overwrite)
    marks = {}
    for name, picture in pictures.items():
        section = SECTIONS[name]
        print(f"\n## {section.about.capitalize()}\n")
        marks[name] = section.run(picture, (n or {}).get(name, section.n), seed, overwrite)
    return marks


def _picture(out: Path, section: str) -> Path:
    """Where a section's picture goes."""
    return out if section == "digits" else out.with_stem(SECTIONS[section].picture)


__all__ = ["SECTIONS", "Mark", "Section", "run"]
