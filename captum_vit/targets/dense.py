"""One place of a dense output: a pixel, a voxel, a region.

Each is a forward function that returns (B, K) scores, so ``target=k`` is a class at that place. A place that is given
to the constructor holds for every sample. Without one each sample has its own: it is the last of the positional
arguments, ``additional_forward_args`` for a method, so that it stays with its sample however a method repeats samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import InputError, OptionError, TargetError, UnsupportedModelError
from captum_vit.models.output import held_by, tensor_of
from captum_vit.options import integer, kind_of, shown
from captum_vit.targets.scores import TargetModule, constant

RESIZE = {1: "linear", 2: "bilinear", 3: "trilinear"}
_OWN = "additional_forward_args=..., with one for each sample; or the one for all, to the constructor."


class Dense(TargetModule):
    """A model whose output has scores for many places, of which one is read."""

    what = "A place"

    def __init__(self, model: nn.Module, output: str | int | None) -> None:
        super().__init__(model, getattr(model, "tower", None))
        self.output = output
        self.raw_scores = output is not None  # what has a name of its own need not be logits of classes

    def split(self, given: tuple[Any, ...]) -> tuple[tuple[Any, ...], Tensor]:
        """The model's arguments, and the place of each sample behind them."""
        if len(given) < 2 or not isinstance(given[-1], Tensor) or len(given[-1]) != len(given[0]):
            got = kind_of(given[-1]) if len(given) > 1 else "none, and none in the constructor"
            raise TargetError(f"{self.what} for each of {len(given[0])} samples.", got, _OWN)
        return given[:-1], given[-1]


class Spatial(Dense):
    """Scores of places in space, resized first if that is wished."""

    def __init__(self, model: nn.Module, output: str | int | None, size: Sequence[int] | None, n: int | None) -> None:
        super().__init__(model, output)
        self.size = None if size is None else _whole("size", size, 1)
        if self.size is not None and n not in (None, len(self.size)):
            wanted = f"A size of {n} numbers, as the place has."
            raise OptionError(wanted, shown(self.size), "size=(height, width), or (depth, height, width).")

    def _scores(self, given: tuple[Any, ...], n: int) -> Tensor:  # shape: (B, K, *space)
        """The output with n dimensions of space; one without classes has one score for each place."""
        output = self.model(*given)
        scores = tensor_of(output, self.output)
        scores = scores.unsqueeze(1) if scores.dim() == n + 1 else scores
        if scores.dim() != n + 2:
            raise no_such(f"samples, classes and {n} dimensions of space", scores, output, n + 2)
        if self.size is None:
            return scores
        if len(self.size) != n or n not in RESIZE:
            wanted = f"A size of {n} numbers, as the output has dimensions of space."
            raise OptionError(wanted, shown(self.size), "size=None for the output's own size.")
        return F.interpolate(scores, self.size, mode=RESIZE[n], align_corners=False)


class Pixel(Spatial):
    """The scores of one pixel or voxel of a dense output: (B, K), one for each class.

    ``out[b, k] = scores[b, k, y, x]``, or ``scores[b, k, z, y, x]`` of a volume. An output without classes (B, H, W),
    depth for instance, gives (B, 1). Costs the model's forward.

    Args:
        model: a segmentation, depth or other dense model of any library.
        at: (y, x), or (z, y, x): counted in the output, or in ``size``. None: each sample has its own, (B, 2) or
            (B, 3) integers as the last positional argument.
        output: which of several outputs, by its name or place: ``"predicted_depth"`` of a depth model,
            ``"masks_queries_logits"`` of Mask2Former, where ``target`` is the query. None for the logits.
        size: enlarge the output to it first, bilinearly and without aligned corners, as the post-processing of
            Hugging Face does: pixels are then those of the picture.

    Raises:
        TargetError: in the forward, a pixel outside the output.
        UnsupportedModelError: in the forward, an output without such dimensions.

    Example:
        >>> road = Pixel(segformer, (120, 88), size=(512, 512))  # doctest: +SKIP
        >>> FullGrad(road, rule="frozen").attribute(images, target=0)  # doctest: +SKIP
        >>> GenAtt(Pixel(dpt)).attribute(images, 3, additional_forward_args=pixels)  # doctest: +SKIP
    """

    what = "A pixel (y, x) or a voxel (z, y, x), as integers,"

    def __init__(
        self,
        model: nn.Module,
        at: Sequence[int] | None = None,
        *,
        output: str | int | None = None,
        size: Sequence[int] | None = None,
    ) -> None:
        place = None if at is None else _whole("at", at, 0)
        super().__init__(model, output, size, None if place is None else len(place))
        self.at = place

    def forward(self, *inputs: Any) -> Tensor:  # shape: (B, K)
        if self.at is not None:
            scores = self._scores(inputs, len(self.at))
            self._refuse_outside(scores, self.at)
            for index in reversed(self.at):
                scores = scores[..., index]
            return scores
        given, places = self.split(inputs)
        if places.dim() != 2 or places.is_floating_point():
            raise TargetError(self.what.capitalize() + " of each sample.", kind_of(places), "torch.tensor([[3, 5]]).")
        scores = self._scores(given, places.shape[1])
        for place in places.tolist():
            self._refuse_outside(scores, place)
        return at_each(scores, places)

    def space(self, *inputs: Any) -> tuple[int, ...]:
        """The size of the output in which a pixel for all samples is counted; costs the model's forward."""
        return tuple(self._scores(inputs, len(self.at)).shape[2:]) if self.at is not None else ()

    def _refuse_outside(self, scores: Tensor, place: Sequence[int]) -> None:
        space = scores.shape[2:]
        if not all(0 <= i < n for i, n in zip(place, space, strict=True)):
            last = tuple(n - 1 for n in space)
            hint = f"{last} at most; size=(height, width) of the picture, if the pixel is counted there."
            raise TargetError(f"A pixel inside an output of {tuple(space)}.", shown(tuple(place)), hint)


class Region(Spatial):
    r"""The mean scores of a region of a dense output: (B, K), one for each class.

    .. math:: g_k = \frac{1}{|M|} \sum_{p \in M} s_k(p)

    Linear in the logits, so that rules which hold parts of a network constant explain it exactly; the mean of logits
    is no logit, so no probability is made of it. Costs the model's forward.

    Args:
        model: a segmentation, depth or other dense model of any library.
        mask: (H, W), or (D, H, W) of a volume: true where the region is, of the output's size, or of ``size``. None:
            each sample has its own, (B, H, W) or (B, D, H, W) as the last positional argument.
        output: which of several outputs, by its name or place. None for the logits.
        size: enlarge the output to it first, as for :class:`Pixel`: ``size=mask.shape`` for a mask of the picture.

    Raises:
        InputError: an empty mask, or one of other values than 0 and 1.
        TargetError: in the forward, a mask of another size than the output.

    Example:
        >>> cat = Region(segformer, mask, size=mask.shape)  # doctest: +SKIP
        >>> FullGrad(cat, rule="frozen").attribute(images, target=8)  # doctest: +SKIP
    """

    what = "A mask"
    mask: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        mask: Tensor | None = None,
        *,
        output: str | int | None = None,
        size: Sequence[int] | None = None,
    ) -> None:
        checked = None if mask is None else constant(_zeros_and_ones(mask, "a mask (height, width)")).bool()
        super().__init__(model, output, size, None if checked is None else checked.dim())
        self.raw_scores = True
        self.register_buffer("mask", checked)

    def forward(self, *inputs: Any) -> Tensor:  # shape: (B, K)
        given, masks = (inputs, self.mask[None]) if self.mask is not None else self.split(inputs)
        n = masks.dim() - 1
        scores = self._scores(given, n)
        if masks.shape[1:] != scores.shape[2:]:
            hint = f"size={tuple(masks.shape[1:])}, which enlarges the output to the mask, as post-processing does."
            wanted = f"A mask of the output's size, {tuple(scores.shape[2:])}."
            raise TargetError(wanted, f"one of {tuple(masks.shape[1:])}", hint)
        if self.mask is None:
            masks = torch.stack([_zeros_and_ones(mask, "masks of each sample") for mask in masks])
        inside = masks.unsqueeze(1).to(scores)
        return (scores * (inside / inside.flatten(2).sum(-1).view(-1, 1, *[1] * n))).flatten(2).sum(-1)


def _whole(name: str, given: Sequence[int], least: int) -> tuple[int, ...]:
    """Whole numbers, one for each dimension of space."""
    numbers = given.tolist() if isinstance(given, Tensor) else given
    hint = f"{name}=(3, 5), or three for a volume."
    if not isinstance(numbers, Sequence) or isinstance(numbers, str) or not 1 <= len(numbers) <= len(RESIZE):
        raise OptionError(f"`{name}` must be one whole number for each dimension of space.", shown(given), hint)
    return tuple(integer(name, number, least, hint=hint) for number in numbers)


def _zeros_and_ones(mask: Any, what: str) -> Tensor:
    """The mask, if it holds nothing else, and is not empty."""
    if not isinstance(mask, Tensor) or not 1 <= mask.dim() <= len(RESIZE):
        raise InputError(f"A tensor, {what}.", kind_of(mask), "mask of 0 and 1, or of booleans.")
    with torch._C.DisableTorchFunction():  # no call of the model
        if not mask.any() or not ((mask == 0) | (mask == 1)).all():
            got = f"values from {mask.min().item():.3g} to {mask.max().item():.3g}"
            raise InputError("A mask of 0 and 1, with a place in it.", got, "(segmentation == 3), for one class.")
    return mask


def at_each(
    scores: Tensor,  # shape: (B, K, *space)
    places: Tensor,  # shape: (B, n)
) -> Tensor:  # shape: (B, K)
    """The scores at the place of each sample."""
    index = [place.to(scores.device) for place in places.unbind(1)]
    return scores.movedim(1, -1)[(torch.arange(len(scores), device=scores.device), *index)]


def no_such(wanted: str, scores: Tensor, output: Any, dims: int) -> UnsupportedModelError:
    """An output of another kind; those that would fit are named."""
    fit = [repr(name) for name, x in held_by(output).items() if x.dim() == dims]
    hint = f"output={' or '.join(fit)}." if fit else "another target: captum_vit.Scalar takes any function."
    return UnsupportedModelError(f"An output of {wanted}.", f"shape {tuple(scores.shape)}", hint)
