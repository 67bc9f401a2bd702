"""Writing what was drawn: refuse before the work, and never leave half a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from captum_vit.errors import InputError


def check_target(path: str | os.PathLike[str], suffixes: Collection[str], overwrite: bool = False) -> Path:
    """What can be known before the work: the kind of file, its folder, and whether one is there already.

    Raises:
        InputError: an unknown suffix, a missing or closed folder, an existing file without ``overwrite``.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError("The path of a file.", repr(path), f'"map{min(suffixes)}".')
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        kinds = sorted(suffixes)
        usual = ".png" if ".png" in kinds else kinds[0]
        raise InputError(f"A file name that ends in {', '.join(kinds)}.", f"{str(path)!r}", f"{path.stem}{usual}")
    if not path.parent.is_dir():
        raise InputError("A folder that exists.", f"{str(path.parent)!r}", "making it, or another path.")
    if not os.access(path.parent, os.W_OK):
        raise InputError("A folder that may be written to.", f"{str(path.parent)!r}", "another path.")
    if path.is_dir():
        raise InputError("The name of a file.", f"the folder {str(path)!r}", "a name inside it.")
    if path.exists() and not overwrite:
        raise InputError(
            "A new file.", f"{str(path)!r}, which exists", "another name, or overwrite=True (--overwrite)."
        )
    return path


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a draft, then move it to ``path`` in one step; a failure leaves no trace."""
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
        draft = Path(folder) / path.name
        write(draft)
        os.replace(draft, path)
    return path


def write_array(array: Tensor, path: Path) -> None:
    """The numbers, for ``numpy.load``."""
    with path.open("wb") as file:
        np.save(file, array.cpu().numpy())


def write_page(html: str, path: Path) -> None:
    """A piece of HTML as a page of its own."""
    head = f'<meta charset="utf-8"><title>{escape(path.stem)}</title>'
    path.write_text(f'<!doctype html><html lang="en">{head}{html}</html>\n', encoding="utf-8")


def write_figure(figure: Figure, kind: str, file: Path | IO[bytes]) -> None:
    """A figure as ``"png"``, ``"pdf"`` or ``"svg"``; undated, so the same PNG and PDF twice."""
    silent = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Producer": None},
        "svg": {"Date": None},
    }
    figure.savefig(file, format=kind, dpi=figure.dpi, bbox_inches="tight", pad_inches=0.05, metadata=silent[kind])
