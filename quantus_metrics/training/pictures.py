"""The pictures to train on: which can be read, which are held out, and their views."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from tqdm import tqdm

from captum_vit.errors import InputError
from captum_vit.inputs.preprocessing import Reader
from quantus_metrics.benchmark.data import Samples
from quantus_metrics.training.head_spec import HeadSpec

View = tuple[int, int]  # the number of a view and the place of a picture


@dataclass(frozen=True)
class Pictures:
    """The pictures of a data set that can be read.

    Args:
        data: all of them.
        places: of those that can be read.
        labels: of these, as whole numbers.
        unread: the names of the others.
    """

    data: Samples
    places: list[int]
    labels: Tensor
    unread: list[str]

    def at(self, rows: Tensor) -> Pictures:
        """Some of them."""
        return Pictures(self.data, [self.places[i] for i in rows.tolist()], self.labels[rows], self.unread)


class _Labels(Dataset[int]):
    """The class of each picture, -1 where it cannot be read."""

    def __init__(self, data: Samples) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> int:
        try:
            return self.data[place].label
        except InputError as error:
            print(f"left out: {self.data.name(place)}: {str(error).splitlines()[1]}", file=sys.stderr)
            return -1


class Views(Dataset[Tensor]):
    """Pictures under a transform; its random numbers depend on seed, view and place, whoever asks, and when."""

    def __init__(self, data: Samples, transform: Callable[[Image], Tensor], seed: int = 0) -> None:
        self.data, self.transform, self.seed = data, transform, seed

    def __getitem__(self, key: View) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            drawn = np.random.SeedSequence((self.seed, *key)).generate_state(1, np.uint64)[0]
            torch.default_generator.manual_seed(int(drawn))
            return self.transform(self.data[key[1]].picture)

    def batches(self, keys: Iterable[list[View]], workers: int) -> Iterator[Tensor]:
        """A batch (B, C, H, W) for each list of keys."""
        return iter(DataLoader(self, batch_sampler=keys, num_workers=workers))


def read_pictures(data: Samples, workers: int) -> Pictures:
    """Open every picture once; those that cannot be read are named on stderr, and left out."""
    loader = DataLoader(_Labels(data), batch_size=64, num_workers=workers)
    labels = torch.cat(list(tqdm(loader, desc="pictures", unit="x64", mininterval=1)))
    places, unread = (rows.flatten().tolist() for rows in ((labels >= 0).nonzero(), (labels < 0).nonzero()))
    return Pictures(data, places, labels[labels >= 0], [data.name(place) for place in unread])


def divided(pictures: Pictures, share: float, seed: int) -> tuple[Pictures, Pictures]:
    """Those to train on, and a share of every class that is held out.

    Raises:
        InputError: a class of one picture.
    """
    generator, kept = torch.Generator().manual_seed(seed), torch.zeros(len(pictures.labels), dtype=torch.bool)
    for label in pictures.labels.unique():
        rows = (pictures.labels == label).nonzero().flatten()
        if len(rows) < 2:
            got = f"one of class {label}"
            raise InputError("Two pictures of each class, one to hold out.", got, "more of it, or held_out of its own.")
        n = min(max(round(share * len(rows)), 1), len(rows) - 1)
        kept[rows[torch.randperm(len(rows), generator=generator)[:n]]] = True
    return pictures.at((~kept).nonzero().flatten()), pictures.at(kept.nonzero().flatten())


def lots(keys: list[View], size: int) -> list[list[View]]:
    """Keys in batches."""
    return [keys[i : i + size] for i in range(0, len(keys), size)]


def transform_of(spec: HeadSpec, reader: Reader, size: torch.Size) -> Callable[[Image], Tensor]:
    """From a picture to a training input of this size: the model's own preprocessing, or the recipe's."""
    if spec.augment == "none":
        return reader.prepare
    steps = [v2.RandomResizedCrop(list(size)), v2.RandomHorizontalFlip()]
    steps += [v2.RandAugment()] if spec.augment == "randaugment" else []
    return v2.Compose(
        [*steps, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(reader.mean, reader.std)]
    )
