"""Scenes of a figure with five parts and of objects beside it, which can be drawn again without any of them.

A part is a shape in a colour at a place of the figure; four kinds of it are there for each place. A class is a
conjunction of five kinds. Two classes have two parts in common at most, so any three parts tell which class it is. The
body of the figure is the same in all, and the objects beside it say nothing of the class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from captum_vit.demo.parts.drawing import N_OBJECTS, N_PARTS, Drawing, drawn
from captum_vit.options import integer, one_of

PLACES = ("head", "left arm", "right arm", "left foot", "right foot")
CLASSES = torch.tensor(
    [
        (0, 0, 2, 2, 2),
        (0, 2, 0, 2, 3),
        (0, 3, 2, 1, 3),
        (1, 0, 3, 2, 0),
        (1, 1, 3, 3, 2),
        (2, 0, 3, 1, 2),
        (2, 2, 1, 1, 3),
        (3, 1, 1, 3, 1),
        (3, 3, 0, 0, 3),
        (3, 3, 1, 1, 2),
    ]
)
"""The kinds of the parts of each class, (10, 5); each class has two parts in common with one other class and two
different ones with another."""

SPLITS = ("train", "test")
MEAN = STD = 0.5


@dataclass(frozen=True)
class PartScenes:
    """A batch of scenes and what is true of them."""

    pixels: Tensor  # shape: (B, 3, 64, 64), in [0, 1]
    label: Tensor  # shape: (B,), the class
    part_masks: Tensor  # shape: (B, 5, 64, 64), bool, where each part of the whole scene is
    object_masks: Tensor  # shape: (B, 3, 64, 64), bool, likewise the objects beside the figure
    drawing: Drawing

    @property
    def images(self) -> Tensor:
        """The pixels normalised for the model, (B, 3, 64, 64) in [-1, 1]."""
        return (self.pixels - MEAN) / STD

    @property
    def kinds(self) -> Tensor:
        """The kind of each part, (B, 5)."""
        return CLASSES[self.label]

    @property
    def classes(self) -> Tensor:
        """The kinds of the parts of each class, (10, 5)."""
        return CLASSES

    def __len__(self) -> int:
        return len(self.pixels)

    def without(self, parts: Tensor | None = None, objects: Tensor | None = None) -> PartScenes:
        """The same scenes, drawn without these parts and these objects: an intervention.

        Masks and classes are still those of the whole scene.

        Args:
            parts: True where a part goes, (B, 5), or (5,) for all scenes; None leaves all.
            objects: likewise for the objects beside the figure, (B, 3) or (3,).
        """
        left = [
            ~(torch.zeros(n, dtype=torch.bool) if gone is None else gone).expand(len(self), n)
            for gone, n in ((parts, N_PARTS), (objects, N_OBJECTS))
        ]
        return replace(self, pixels=self.drawing.painted(left[0], left[1]))


def part_scenes(n_scenes: int, split: str = "test", seed: int = 0) -> PartScenes:
    """Draw scenes of all classes; the same arguments give the same scenes, and no global random state is touched.

    Args:
        n_scenes: how many scenes.
        split: ``"train"`` or ``"test"``: no seed gives a scene of both.
        seed: of the private generator, from 0 on.

    Example::

        >>> scenes = part_scenes(8)
        >>> scenes.images.shape, scenes.part_masks.shape, scenes.object_masks.shape
        (torch.Size([8, 3, 64, 64]), torch.Size([8, 5, 64, 64]), torch.Size([8, 3, 64, 64]))
        >>> headless = scenes.without(parts=torch.tensor([True, False, False, False, False]))
    """
    integer("n_scenes", n_scenes, hint="n_scenes=20.")
    integer("seed", seed, least=0, hint="seed=0.")
    generator = Generator().manual_seed(2 * seed + SPLITS.index(one_of("split", split, SPLITS)))
    label = torch.randint(len(CLASSES), (n_scenes,), generator=generator)
    drawing = drawn(CLASSES[label], generator)
    pixels = drawing.painted(torch.ones(N_PARTS), torch.ones(N_OBJECTS))
    return PartScenes(pixels, label, drawing.parts > 0.5, drawing.objects > 0.5, drawing)
