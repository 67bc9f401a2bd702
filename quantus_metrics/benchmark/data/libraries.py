"""Data sets that other libraries read: torchvision's CIFAR, and any of Hugging Face's `datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import torchvision
from PIL import Image

from captum_vit.errors import InputError
from captum_vit.inputs.rgb import rgb
from captum_vit.options import one_of
from quantus_metrics.benchmark.data.digests import digest_of
from quantus_metrics.benchmark.data.drawn import drawn
from quantus_metrics.benchmark.data.samples import Sample


class Cifar:
    """The pictures of CIFAR-10 or CIFAR-100, from the files that their authors publish.

    Args:
        root: the folder that holds ``cifar-10-batches-py`` or ``cifar-100-python``.
        classes: 10 or 100.
        n: that many pictures, drawn by `seed`; all by default.
        seed: of that draw, and of the wrong classes.
        split: ``"test"``, 10,000 pictures, or ``"train"``, 50,000.

    Raises:
        InputError: the files are not there, or damaged.
    """

    def __init__(
        self,
        root: str,
        classes: Literal[10, 100] = 10,
        n: int | None = None,
        seed: int = 0,
        split: Literal["test", "train"] = "test",
    ) -> None:
        self.split = one_of("split", split, ("test", "train"))
        kinds: dict[int, Any] = {10: torchvision.datasets.CIFAR10, 100: torchvision.datasets.CIFAR100}
        if classes not in kinds:
            raise InputError("CIFAR with 10 or 100 classes.", repr(classes), "classes = 10")
        try:
            self.data = kinds[classes](root, train=split == "train")
        except RuntimeError as error:
            raise InputError(
                f"CIFAR-{classes} in {root!r}.", str(error), "torchvision.datasets, download=True"
            ) from error
        self.classes, self.places, self.turns = classes, *_drawn(len(self.data), n, classes, seed)

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        """The split, and the place among its pictures."""
        return f"{self.split}-{self.places[index]:05d}"

    def digest(self) -> str:
        """Of the split, the places and the files."""
        files = sorted((Path(self.data.root) / self.data.base_folder).iterdir())
        return digest_of([self.split, self.places, self.turns], files)

    def __getitem__(self, index: int) -> Sample:
        picture, label = self.data[self.places[index]]
        return Sample(self.name(index), picture, label, (label + self.turns[index]) % self.classes)


class Hub:
    """A data set of Hugging Face's `datasets`, by name or from a folder that ``save_to_disk`` wrote.

    Args:
        path: the name on the hub, or the folder.
        split: which part.
        name: its configuration, where it has several.
        image: the column of pictures.
        label: the column of class numbers.
        mask: a column of masks, if there is one: what is not 0 is the object.
        n: that many samples, drawn by `seed`; all by default.
        seed: of that draw, and of the wrong classes.

    Raises:
        InputError: it cannot be had, or has no such columns.
    """

    def __init__(
        self,
        path: str,
        split: str = "validation",
        name: str | None = None,
        image: str = "image",
        label: str = "label",
        mask: str | None = None,
        n: int | None = None,
        seed: int = 0,
    ) -> None:
        data = _loaded(path, name, split)
        self.image, self.label, self.mask = image, label, mask
        if missing := [column for column in (image, label, mask) if column and column not in data.column_names]:
            raise InputError(f"Columns of {path!r}.", repr(missing[0]), "one of " + ", ".join(data.column_names))
        feature = data.features[label]
        self.classes = getattr(feature, "num_classes", None) or int(max(data[label])) + 1
        self.data, (self.places, self.turns) = data, _drawn(len(data), n, self.classes, seed)

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        """The place in the split."""
        return f"row-{self.places[index]:06d}"

    def digest(self) -> str:
        """Of the places, the columns and the files of the split."""
        facts = [self.places, self.turns, self.image, self.label, self.mask, len(self.data)]
        return digest_of(facts, [Path(file["filename"]) for file in self.data.cache_files])

    def __getitem__(self, index: int) -> Sample:
        row = self.data[self.places[index]]
        label = int(row[self.label])
        mask = None if self.mask is None else _mask(row[self.mask])
        wrong = (label + self.turns[index]) % self.classes
        return Sample(self.name(index), rgb(row[self.image]), label, wrong, mask)


def _loaded(path: str, name: str | None, split: str) -> Any:
    try:
        if not Path(path).is_dir():
            return datasets.load_dataset(path, name, split=split)
        found = datasets.load_from_disk(path)
        return found[split] if isinstance(found, datasets.DatasetDict) else found
    except (OSError, ValueError, KeyError) as error:  # the library's own errors are subclasses of these
        hint = "another split, the name as the hub spells it, or a folder that `save_to_disk` wrote."
        raise InputError(f"The split {split!r} of a data set.", f"{path!r} ({error})", hint) from error


def _drawn(total: int, n: int | None, classes: int, seed: int) -> tuple[list[int], list[int]]:
    """Which samples, and by how much the wrong class of each differs from the right one."""
    places = drawn(total, n, seed)
    return places, np.random.default_rng(seed).integers(1, max(classes, 2), len(places)).tolist()


def _mask(mask: Image.Image) -> Image.Image:
    """What is not 0 in any channel but alpha: numbers of classes or of a palette, in any depth, or colours."""
    values = np.asarray(mask)
    inside = values if values.ndim == 2 else values[..., : 3 if values.shape[-1] > 2 else 1].any(-1)
    return Image.fromarray(255 * (inside != 0).astype(np.uint8))
