"""Pictures of ImageNet with masks of their object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from timm.data import ImageNetInfo

from captum_vit.errors import InputError
from captum_vit.inputs.rgb import open_picture
from quantus_metrics.benchmark.data.digests import digest_of
from quantus_metrics.benchmark.data.drawn import drawn
from quantus_metrics.benchmark.data.samples import Sample

IGNORED = 1000  # what ImageNet-S calls a pixel that belongs to nothing in particular


class ImageNetSegmentation:
    """4,276 pictures with one mask each (Guillaumin et al.), from its file ``gtsegs_ijcv.mat`` (MATLAB 7.3, HDF5).

    The class is the synset at the beginning of the picture's name in the file.

    Args:
        path: the file.
        n: that many pictures, drawn by `seed`; all by default.
        seed: of that draw.

    Raises:
        InputError: no such file, or not of that form.
    """

    def __init__(self, path: str, n: int | None = None, seed: int = 0) -> None:
        self.path, self.file = path, None
        try:
            with h5py.File(path, "r") as file:
                self.ids = [_text(file[reference]) for reference in file["/value/id"][:, 0]]
        except (OSError, KeyError) as error:
            hint = "the file as its authors publish it."
            raise InputError("ImageNet-Segmentation's file gtsegs_ijcv.mat.", f"{path!r} ({error})", hint) from error
        synsets = _synsets()
        unknown = [name for name in self.ids if name.partition("_")[0] not in synsets]
        if unknown:
            got = f"{unknown[0]!r} in {path!r}"
            raise InputError("Pictures of ImageNet's 1,000 classes.", got, "names such as 'n01440764_18'.")
        self.labels = [synsets[name.partition("_")[0]] for name in self.ids]
        self.places = drawn(len(self.ids), n, seed)

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        """The name in the file, and its place, since that is unique."""
        place = self.places[index]
        return f"{place:05d}-{self.ids[place]}"

    def digest(self) -> str:
        """Of the file and its classes, and of which pictures."""
        return digest_of([self.labels, self.places], [Path(self.path)])

    def __getitem__(self, index: int) -> Sample:
        file, place = self._opened(), self.places[index]
        pixels = np.array(file[file["/value/img"][place, 0]]).transpose(2, 1, 0)  # MATLAB stores (C, W, H)
        mask = np.array(file[file[file["/value/gt"][place, 0]][0, 0]]).T  # the first of its annotators
        picture, label = Image.fromarray(pixels.astype(np.uint8)).convert("RGB"), self.labels[place]
        return Sample(self.name(index), picture, label, mask=_mask(mask > 0))

    def _opened(self) -> Any:
        """Opened by the process that reads, since handles do not survive a fork."""
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        return self.file


class ImageNetS:
    """ImageNet-S: validation pictures with a mask for each of 50, 300 or 919 classes.

    The class explained is that with the largest area in the mask, as the SkipPLUS paper has it.

    Args:
        images: the folder of pictures, ``SYNSET/NAME.JPEG``.
        masks: the folder of masks, ``SYNSET/NAME.png``: red + 256 green is the class, from 1, in the order of sorted
            synsets; 0 is other, 1000 ignored.
        n: that many pictures, drawn by `seed`; all by default.
        seed: of that draw.

    Raises:
        InputError: no such folders, a mask without its picture, or a class that the masks' folders do not have.
    """

    def __init__(self, images: str, masks: str, n: int | None = None, seed: int = 0) -> None:
        self.images, root = Path(images), Path(masks)
        self.masks = sorted(root.glob("*/*.png"))
        if not self.masks:
            hint = "the folder `validation-segmentation` of ImageNet-S."
            raise InputError("A folder of masks, SYNSET/NAME.png.", f"{masks!r}, without any", hint)
        self.synsets = sorted({path.parent.name for path in self.masks})
        known = _synsets()
        if unknown := [name for name in self.synsets if name not in known]:
            raise InputError("Folders named by ImageNet's synsets.", repr(unknown[0]), "names such as 'n01440764'.")
        self.class_of = [known[name] for name in self.synsets]
        self.masks = [self.masks[place] for place in drawn(len(self.masks), n, seed)]

    def __len__(self) -> int:
        return len(self.masks)

    def name(self, index: int) -> str:
        """The path below the folder of masks."""
        path = self.masks[index]
        return f"{path.parent.name}/{path.stem}"

    def digest(self) -> str:
        """Of names and classes, and of the files of masks and pictures."""
        facts = [*map(self.name, range(len(self))), self.class_of]
        return digest_of(facts, [*self.masks, *map(self._picture, self.masks)])

    def _picture(self, mask: Path) -> Path:
        return self.images / mask.parent.name / f"{mask.stem}.JPEG"

    def __getitem__(self, index: int) -> Sample:
        path = self.masks[index]
        with Image.open(path) as image:
            red, green, _ = np.asarray(image.convert("RGB")).astype(int).transpose(2, 0, 1)
        classes = red + 256 * green  # shape: (H, W), from 1
        areas = np.bincount(classes.ravel(), minlength=IGNORED + 1)
        areas[[0, IGNORED]] = 0
        largest = int(areas.argmax())
        if not areas[largest] or largest > len(self.class_of):
            got = f"{str(path)!r}, largest class {largest}"
            raise InputError("A mask with one of the classes.", got, "masks of one and the same ImageNet-S.")
        picture = open_picture(self._picture(path))
        return Sample(self.name(index), picture, self.class_of[largest - 1], mask=_mask(classes == largest))


def _synsets() -> dict[str, int]:
    """ImageNet's synsets and their class numbers."""
    return {name: number for number, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}


def _text(codes: Any) -> str:
    """A MATLAB string: a column of UTF-16 codes."""
    return "".join(map(chr, np.array(codes).ravel().tolist())).strip()


def _mask(
    inside: np.ndarray,  # shape: (H, W), bool
) -> Image.Image:
    return Image.fromarray(255 * inside.astype(np.uint8))
