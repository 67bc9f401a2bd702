"""Pictures in folders, one for each class, as ImageNet's validation set is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from captum_vit.errors import InputError, OptionError
from captum_vit.inputs.rgb import open_picture
from captum_vit.options import boolean, integer, integer_or_none
from quantus_metrics.benchmark.data.digests import digest_of
from quantus_metrics.benchmark.data.samples import Sample


class _Entry(NamedTuple):
    name: str
    path: Path
    label: int
    wrong: int


class ImageFolder:
    """Pictures below ``root/CLASS/``; classes are numbered in the order of their folders' names, as ImageNet's are.

    Args:
        root: the folder.
        n: that many pictures, drawn by `seed`; all by default.
        seed: of that draw, and of the wrong classes.
        real: the ReaL labels of ImageNet's validation set (``real.json``): for each of the 50,000 pictures, by the
            number in its file name, all classes that it shows.
        multi: only pictures that show several classes by `real`, each explained for one of them, with another one as
            the wrong class, both drawn by `seed` (X_multi of the CDAM paper). Otherwise each picture is explained for
            its folder's class, with any other class as the wrong one, which by `real` is not in the picture (X_val).

    Departs   the CDAM paper leaves out pairs of classes whose names are close, by a threshold that it does not give;
              here all pairs stay.

    Raises:
        InputError: no such folder, no pictures in it, or ReaL labels that cannot be read.
        OptionError: `multi` without `real`.
    """

    suffixes = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".tif", ".tiff")

    def __init__(
        self, root: str, n: int | None = None, seed: int = 0, real: str | None = None, multi: bool = False
    ) -> None:
        integer_or_none("n", n, hint="n = 200, or no n for all.")
        integer("seed", seed, least=0, hint="seed = 0")
        boolean("multi", multi)
        if multi and real is None:
            raise OptionError("`real`, a file of ReaL labels, for `multi`.", "none", "multi = false")
        files = _files(Path(root), self.suffixes)
        shown = None if real is None else _real(Path(real))
        classes = sorted({path.relative_to(root).parts[0] for path in files})
        if len(classes) < 2:
            hint = "the folder above, which holds one folder for each class."
            raise InputError("Folders of two classes at least.", f"{len(classes)} in {root!r}", hint)
        draw = np.random.default_rng(seed)
        entries = [
            entry
            for path in files
            for entry in _entries(path, Path(root), classes, shown, multi, int(draw.integers(2**31)))
        ]
        if n is not None and n < len(entries):
            entries = [entries[i] for i in sorted(draw.choice(len(entries), n, replace=False))]
        if not entries:
            got = f"none in {root!r}" + (" with several classes" if multi else "")
            raise InputError("At least one picture.", got, f"files that end in {', '.join(self.suffixes)}.")
        self.entries, self.classes = entries, classes

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        """The path below the root; with the class, where a picture shows several."""
        return self.entries[index].name

    def digest(self) -> str:
        """Of names, classes and the pictures' files."""
        facts = (f"{entry.name} {entry.label} {entry.wrong}" for entry in self.entries)
        return digest_of(facts, (entry.path for entry in self.entries))

    def __getitem__(self, index: int) -> Sample:
        entry = self.entries[index]
        return Sample(entry.name, open_picture(entry.path), entry.label, entry.wrong)


def _files(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not root.is_dir():
        raise InputError("A folder of pictures.", f"{str(root)!r}, which is no folder", "an absolute path.")
    return sorted(path for path in root.glob("*/**/*") if path.suffix.lower() in suffixes)


def _entries(
    path: Path, root: Path, classes: list[str], shown: list[list[int]] | None, multi: bool, lot: int
) -> Iterator[_Entry]:
    """The sample that a file makes, if it makes one."""
    name, label = path.relative_to(root).as_posix(), classes.index(path.relative_to(root).parts[0])
    present = [label] if shown is None else shown[_number(path, len(shown))]
    if multi and len(present) > 1:
        label, wrong = list(permutations(present, 2))[lot % (len(present) * (len(present) - 1))]
        yield _Entry(f"{name}#{label}", path, label, wrong)
    elif not multi:
        absent = [number for number in range(len(classes)) if number not in {label, *present}]
        yield _Entry(name, path, label, absent[lot % len(absent)])


def _number(path: Path, n: int) -> int:
    """Which picture of the validation set a file is, from 0: its name ends in the number, from 1."""
    digits = path.stem.rpartition("_")[2]
    if not digits.isdigit() or not 1 <= int(digits) <= n:
        wanted = f"A file name that ends in a number from 1 to {n}, as ReaL counts them."
        raise InputError(wanted, repr(path.name), "the original names, such as ILSVRC2012_val_00000001.JPEG.")
    return int(digits) - 1


def _are_classes(labels: object) -> bool:
    return isinstance(labels, list) and all(type(label) is int for label in labels)


def _real(path: Path) -> list[list[int]]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        hint = "real.json, as the authors of ReaL publish it."
        raise InputError("A JSON file of ReaL labels.", f"{str(path)!r} ({error})", hint) from error
    if not isinstance(found, list) or not all(map(_are_classes, found)):
        wanted = "ReaL labels: a list with the classes of each picture."
        raise InputError(wanted, f"{str(path)!r}", "real.json, as the authors of ReaL publish it.")
    return found
