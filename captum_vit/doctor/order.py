"""Whether the tokens of the sequence are where the layout has them: measured by changing one place of the input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from captum_vit.doctor.subject import Residual, Subject
from captum_vit.errors import InputError
from captum_vit.tokens import TokenLayout
from captum_vit.trace.record.record import Want, record
from captum_vit.trace.run.state import undisturbed

PLACES = 8


def order(subject: Subject) -> Residual:
    """The share of places whose change moves another token most than the one that stands for it."""
    want = Want(seen=["tokens"])
    with undisturbed(subject.model):
        layout = record(subject.call, None, want).layout
        places = _places(layout)
        changed = _changed(subject.sample[0], layout, places)
        (_, *others), args = subject.copies(len(changed))
        found = record(replace(subject.call, inputs=(changed, *others), args=args), None, want)
    tokens = found.seen["tokens"][0].double()  # shape: (P + 1, N, D)
    moved = (tokens[1:] - tokens[0]).norm(dim=-1)  # shape: (P, N)
    if not moved.any():
        raise InputError("Tokens that depend on the input.", "some that stay when it changes", "another layer.")
    wrong = [
        f"{_named(place, layout)} moves token {int(row.argmax())}, not {token}."
        for place, token, row in zip(places, _tokens(layout, places), moved, strict=True)
        if row.any() and row.argmax() != token
    ]
    return Residual(len(wrong) / len(places), 0.0, 1.0, " ".join(wrong[:2]))


def _places(layout: TokenLayout) -> list[int]:
    """Up to ``PLACES`` patches or words, the first and the last among them, in no regular distance."""
    if layout.keep is not None:
        kept: list[int] = layout.keep[0].nonzero().flatten().tolist()
    else:
        kept = [place for place, token in enumerate(_tokens(layout, range(layout.n_places))) if token >= 0]
    if len(kept) < 2:
        raise InputError("Several patches or words.", f"{len(kept)}", "a larger picture, a longer text.")
    drawn = torch.randperm(len(kept) - 2, generator=torch.Generator().manual_seed(0))[: PLACES - 2] + 1
    return [kept[0], *(kept[i] for i in sorted(drawn.tolist())), kept[-1]]


def _tokens(layout: TokenLayout, places: Iterable[int]) -> list[int]:
    """The token of each place."""
    first = layout.n_tokens - layout.n_places
    return [first + place if layout.places is None else layout.places[place] for place in places]


def _changed(x: Tensor, layout: TokenLayout, places: list[int]) -> Tensor:  # shape: (P + 1, ...)
    """The sample, and one copy for each place that is changed there."""
    copies = x.repeat_interleave(len(places) + 1, 0)
    if layout.grid is None:
        for copy, place in zip(copies[1:], places, strict=True):
            copy[place] = _another_word(x[0], int(x[0, place]))
        return copies
    generator = torch.Generator().manual_seed(1)
    for copy, place in zip(copies[1:], places, strict=True):
        rows, columns = _cell(layout, place)
        cell = copy[:, rows, columns]
        cell += torch.randn(cell.shape, generator=generator).to(x) * x.std().clamp_min(0.1)
    return copies


def _cell(layout: TokenLayout, place: int) -> tuple[slice, slice]:
    """The pixels of a patch, as far as they are in the image: rows and columns."""
    rows, columns = layout.grid or (1, 1)
    top, left, bottom, right = layout.box

    def edges(start: int, end: int, n: int, i: int) -> slice:
        return slice(*(max(round(start + j * (end - start) / n), 0) for j in (i, i + 1)))

    return edges(top, bottom, rows, place // columns), edges(left, right, columns, place % columns)


def _another_word(ids: Tensor, word: int) -> int:
    """Another id of the same text."""
    others = [number for number in ids.tolist() if number != word]
    if not others:
        raise InputError("A text of several words.", "the same id everywhere", "a text of different words.")
    return int(max(set(others), key=others.count))


def _named(place: int, layout: TokenLayout) -> str:
    if layout.grid is None:
        return f"Word {place}"
    return f"The patch in row {place // layout.grid[1]}, column {place % layout.grid[1]}"
