"""What a benchmark is run on: pictures with a class, and where they have them other classes and a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class Sample:
    """One picture and what is known of it.

    Args:
        name: the same in every run, and no other sample's.
        picture: RGB, as it is stored; it is read by the model's own configuration.
        label: the class to explain.
        wrong: another class, for metrics that compare with the map of a wrong one; None where there is none.
        mask: of the picture's size, mode "L", 255 on the object, 0 beside it; None where there is none.
    """

    name: str
    picture: Image.Image
    label: int
    wrong: int | None = None
    mask: Image.Image | None = None


class Samples(Protocol):
    """A data set: its samples in an order that is always the same, each read when it is indexed."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...

    def name(self, index: int, /) -> str:
        """The name of a sample, without reading its picture."""


Reader = Callable[..., Samples]
"""Makes a data set from a spec's options."""
