"""What a model answers about scenes without each set of their parts, and without each object beside them."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError
from captum_vit.options import integer
from captum_vit.trace.run.found import without_gradients
from quantus_metrics.bridge import to_tensor
from quantus_metrics.metrics.batch import Answers, whole_images


class PartWorld(Protocol):
    """Scenes that can be drawn again without some of their parts, as `captum_vit.demo.part_scenes` draws them."""

    @property
    def images(self) -> Tensor:
        """(B, C, H, W), as the model takes them."""

    @property
    def label(self) -> Tensor:
        """(B,), the class."""

    @property
    def classes(self) -> Tensor:
        """(C, P), which kind of each part a class has; no two classes have the same."""

    @property
    def part_masks(self) -> Tensor:
        """(B, P, H, W), bool."""

    @property
    def object_masks(self) -> Tensor:
        """(B, M, H, W), bool: things that belong to no class."""

    def without(self, parts: Tensor | None = None, objects: Tensor | None = None) -> PartWorld:
        """The same scenes without the parts (B, P) or (P,), and the objects (B, M) or (M,), that are True."""


@dataclass(frozen=True)
class Effects:
    """Interventions and their answers, once for all methods.

    Args:
        scenes: what was asked about.
        parts: (B, 2**P, C), the scores of each scene with each set of its parts: part p is left in set s if bit p of s
            is 1. The last set is all of them.
        objects: (B, M, C), the scores without each object beside the figure.
    """

    scenes: PartWorld
    parts: Tensor
    objects: Tensor

    @property
    def whole(self) -> Tensor:  # shape: (B, C)
        """The scores of the whole scenes."""
        return self.parts[:, -1]

    @property
    def right(self) -> Tensor:  # shape: (B,), bool
        """Scenes whose class the model names."""
        return self.whole.argmax(1) == self.scenes.label

    def without(self, parts: Tensor) -> Tensor:  # shape: (B, C)
        """The scores without the parts (B, P) that are True."""
        return self.parts[torch.arange(len(parts)), code(~parts)]

    def losses(
        self,
        classes: Tensor,  # shape: (B,)
    ) -> tuple[Tensor, Tensor]:  # shapes: (B, P), (B, M)
        """What the scores of these classes lose without each part, and without each object beside the figure."""
        n, n_parts = len(classes), self.scenes.part_masks.shape[1]
        alone = [self.without(one.expand(n, n_parts)) for one in torch.eye(n_parts).bool()]
        left = [torch.stack(alone, 1), self.objects]
        parts, objects = (
            (self.whole[:, None] - x).gather(2, classes.view(-1, 1, 1).expand(*x.shape[:2], 1)) for x in left
        )
        return parts.squeeze(2), objects.squeeze(2)

    def shapley(
        self,
        classes: Tensor,  # shape: (B,)
    ) -> Tensor:  # shape: (B, P)
        r"""The Shapley value of each part for the probability of these classes, exact, since all sets were asked about.

        .. math:: \phi_p = \sum_{S \not\ni p} \frac{|S|!\,(P - 1 - |S|)!}{P!}\,\bigl(f_c(S \cup p) - f_c(S)\bigr)

        Where several parts say the same, the loss of one costs little; this counts what it is worth in all sets.
        """
        f = self.parts.softmax(2).gather(2, classes.view(-1, 1, 1).expand(-1, self.parts.shape[1], 1)).squeeze(2)
        n_parts, sets, found = self.scenes.part_masks.shape[1], torch.arange(self.parts.shape[1]), []
        for part in range(n_parts):
            absent = sets[(sets >> part) & 1 == 0]
            size = ((absent[:, None] >> torch.arange(n_parts)) & 1).sum(1)
            weight = torch.tensor([1 / (n_parts * comb(n_parts - 1, k)) for k in size.tolist()])
            found.append(((f[:, absent | 1 << part] - f[:, absent]) * weight).sum(1))
        return torch.stack(found, 1)

    def map(
        self,
        classes: Tensor,  # shape: (B,)
        of: Literal["losses", "shapley"] = "losses",
    ) -> Tensor:  # shape: (B, 1, H, W)
        """The map that the interventions themselves give: what each thing counts for, spread over its pixels.

        Args:
            of: "losses", what the score loses without each thing; or "shapley" for the parts, and zero for objects.
        """
        masks = torch.cat([self.scenes.part_masks, self.scenes.object_masks], 1).float()
        parts, objects = self.losses(classes)
        counts = (parts, objects) if of == "losses" else (self.shapley(classes), torch.zeros_like(objects))
        return torch.einsum("bk,bkhw->bhw", torch.cat(counts, 1) / masks.sum((2, 3)), masks).unsqueeze(1)

    @property
    def background_independence(self) -> float:
        """The share of objects beside the figures without which the score of the class loses less than 5 %.

        It is a property of the model. Of scenes whose class the model names.
        """
        own = self.whole.gather(1, self.scenes.label[:, None])
        return 1 - (self.losses(self.scenes.label)[1] >= 0.05 * own.abs())[self.right].float().mean().item()


def code(left: Tensor) -> Tensor:  # shape: (..., P) bool to (...)
    """The number of a set of parts: bit p is 1 if part p is left."""
    return (left.long() << torch.arange(left.shape[-1])).sum(-1)


@without_gradients
def part_effects(model: nn.Module, scenes: PartWorld, batch_size: int = 100) -> Effects:
    """Ask a model about scenes without each set of their parts, and without each object beside the figure.

    Costs     2**P + M image passes per scene, 35 for `captum_vit.demo.part_scenes`. They serve all methods.

    Raises:
        InputError: fewer than two scenes whose class the model names.
        ModelStateError: a model in training mode.
    """
    integer("batch_size", batch_size, hint="batch_size=100.")
    answer, n_parts, n_objects = Answers(model), scenes.part_masks.shape[1], scenes.object_masks.shape[1]
    device = next(iter(model.parameters())).device

    def ask(shown: PartWorld) -> Tensor:  # shape: (B, C)
        return whole_images(answer, to_tensor(shown.images, device), batch_size).float().cpu()

    sets = (torch.arange(2**n_parts)[:, None] >> torch.arange(n_parts)) & 1
    parts = torch.stack([ask(scenes.without(parts=left == 0)) for left in sets], 1)
    objects = torch.stack([ask(scenes.without(objects=one)) for one in torch.eye(n_objects).bool()], 1)
    found = Effects(scenes, parts, objects)
    if found.right.sum() < 2:
        got = f"{int(found.right.sum())} of {len(parts)}"
        raise InputError("Two scenes whose class the model names, at least.", got, "captum_vit.demo.demo_parts().")
    return found
