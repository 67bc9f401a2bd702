"""How a prediction fades: an order, a remover and a model make a curve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from operator import sub
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import InputError, OptionError, TargetError
from captum_vit.options import IN_MEMORY, integer_or_none, number, shown
from captum_vit.tokens import Box
from captum_vit.trace.run.found import without_gradients
from quantus_metrics.bridge import logits, to_tensor
from quantus_metrics.cells import Size, box_under, patches_of

from .ranks import divides, patch_of, rank, ranking_map, ranking_words
from .remove import Blur, Model, Remover, bind_over, check_remover
from .remove_tokens import DropTokens

FRACTIONS = tuple(k / 20 for k in range(21))
"""0, 5, ..., 100 %."""

Readout = Callable[[Tensor, Tensor], Tensor]
Counts = tuple[int, ...]  # one for each input


@dataclass(frozen=True)
class Curve:
    """A model's scores of each image as more and more of it is gone.

    Args:
        fractions: (K,) how much is gone, from 0 to 1, increasing.
        scores: (B, K) the model's score at each fraction.
        relevance: (B, K) the mean relevance of each group that went by itself; None where parts piled up.
    """

    fractions: Tensor
    scores: Tensor
    relevance: Tensor | None = None

    def area(self) -> Tensor:  # shape: (B,)
        """The area under each curve by the trapezoid rule, over fractions: a mean score."""
        return torch.trapezoid(self.scores, self.fractions)


def target_score(
    outputs: Tensor,  # shape: (n, n_classes)
    target: Tensor,  # shape: (n,)
) -> Tensor:  # shape: (n,)
    """The output at the target class."""
    if outputs.dim() != 2:
        hint = "captum_vit.Scalar(model, function) with a function that takes them out."
        raise InputError("Outputs of shape (B, n_classes).", f"outputs of shape {tuple(outputs.shape)}", hint)
    if not ((target >= 0) & (target < outputs.shape[1])).all():
        got = f"{target.min().item()} to {target.max().item()}"
        hint = "classes numbered as the model's head numbers them."
        raise TargetError(f"Targets from 0 to {outputs.shape[1] - 1}.", got, hint)
    return outputs.gather(1, target.unsqueeze(1)).squeeze(1)


@without_gradients
def curves(
    model: Model,
    inputs: Tensor,  # shape: (B, C, H, W), or (B, T) token ids
    target: int | Tensor,  # shape: () or (B,)
    relevance: Tensor,  # shape: (B, h, w) or (B, 1, h, w), of patches or of pixels; or (B, T), of words
    orders: Sequence[str] = ("mif", "lif"),
    *,
    remover: Remover | None = None,
    fractions: Sequence[float] = FRACTIONS,
    patch_size: int | Size | None = None,
    internal_batch_size: int | None = None,
    generator: torch.Generator | None = None,
    readout: Readout = target_score,
    args: tuple[Any, ...] = (),
    among: Tensor | None = None,  # shape: of the ranked map, bool
    box: Box | None = None,
    apart: bool = False,
) -> dict[str, Curve]:
    r"""One curve per order, :math:`f_c(x \setminus \text{the first } n \text{ patches})` against :math:`n`.

    At fraction p of P patches the nearest whole number of them is gone. Of a text it is words that go, and P
    counts those that may, text by text.

    Reads     the model, which gives scores or an object that holds them, without gradients.
    Costs     one image pass per image and *different* number of patches, for each order; the intact and the
              empty image are shared between orders. With K different numbers, 0 and P among them, and O
              orders: O (K − 2) + 2 image passes per image, so 40 for the defaults.

    Args:
        relevance: ranked as it is, signs included; see `ranking_map` for its sizes and `patch_size`.
        orders: "mif", "lif", "random"; see `rank`.
        remover: how a patch or a word goes away; by default a `Blur`, and `DropTokens` for texts.
        fractions: increasing, from 0 to 1.
        internal_batch_size: images per forward pass, which bounds the memory; None takes as many as
            `inputs` has. Full passes mix images and steps, so there are ⌈images / internal_batch_size⌉.
        generator: draws the random order.
        readout: makes one score of the outputs (n, n_classes) and the targets (n,).
        args: further arguments of the model, such as an attention mask.
        among: what may leave at all; see `removable_words`. Fractions are of these. None: everything.
        box: top, left, bottom and right edge of the pixels that the cells of a map of patches divide evenly. None finds
            them for a transformer, whose patches may leave a border unread, or lie over padding; for other models it
            is the image. It costs an embedding of one image.
        apart: at each fraction only those are gone that leave between the fraction before, or 0, and this one: groups
            that go one at a time, at one image pass for each.

    Raises:
        InputError: maps that rank nothing (see `ranking_map`), inputs that are no images, scores that are
            not finite, or groups of no part.
        TargetError: a target that the model does not have.
        OptionError: an unknown order, or fractions or an internal batch size that make no sense.

    Example:
        >>> found = curves(model, images, target=3, relevance=LayerCDAM(model).attribute(images, 3))
        >>> found["lif"].area() - found["mif"].area()
    """
    target = _check(inputs, target, relevance, fractions, remover, internal_batch_size)
    maps, remover = relevance.to(inputs.device), remover or (Blur() if inputs.dim() == 4 else DropTokens())
    size, image, patch = tuple(maps.shape[-2:]), (inputs.shape[-2], inputs.shape[-1]), patch_of(patch_size)

    @cache
    def under() -> Box | None:
        if box is not None or inputs.dim() == 2:
            return box
        return box_under(lambda: patches_of(model, inputs, args), size, image, patch, remover.of_tokens)

    if inputs.dim() == 4:
        known = patch is None and divides(size, image)  # the model may contradict it, but what is ranked stays
        maps = ranking_map(maps, image, patch, None if known else under())
    else:
        maps = ranking_words(maps, inputs.shape)
    among = _among(among, maps)
    ranks = torch.stack([rank(maps, order, generator, among) for order in orders])  # (O, B, h, w) or (O, B, T)
    steps, places = _plan(fractions, among.flatten(1).sum(1).tolist(), len(orders), apart)
    order_of = torch.tensor([order for order, _, _ in steps], device=inputs.device)  # (J,)
    first, end = torch.tensor([turns for _, *turns in steps], device=inputs.device).unbind(1)  # (J, B) each

    answer = bind_over(under(), remover, model, inputs, args)
    found = []
    for views in torch.arange(len(steps) * len(inputs), device=inputs.device).split(internal_batch_size or len(inputs)):
        step, row = views // len(inputs), views % len(inputs)
        turns = ranks[order_of[step], row].flatten(1)
        gone = (turns >= first[step, row, None]) & (turns < end[step, row, None])
        found.append(readout(logits(answer(row, gone.view(-1, *maps.shape[1:]))), target[row]))
    scores = torch.cat(found).view(len(steps), len(inputs))  # (J, B)
    if not scores.isfinite().all():
        raise InputError("Finite scores.", "NaN or infinity from the model", "inputs without NaN; float32.")

    x = torch.tensor(fractions, device=scores.device, dtype=scores.dtype)
    means = [
        _means_of_groups(maps, turns, first[place].T, end[place].T) if apart else None
        for turns, place in zip(ranks, places, strict=True)
    ]
    return {order: Curve(x, scores[place].T, mean) for order, place, mean in zip(orders, places, means, strict=True)}


def _means_of_groups(
    maps: Tensor,  # shape: (B, ...)
    ranks: Tensor,  # same shape
    first: Tensor,  # shape: (B, K)
    end: Tensor,  # shape: (B, K)
) -> Tensor:  # shape: (B, K)
    leaving = (
        torch.empty_like(maps, dtype=torch.float64).flatten(1).scatter_(1, ranks.flatten(1), maps.flatten(1).double())
    )
    sums = F.pad(leaving.cumsum(1), (1, 0))
    return (sums.gather(1, end) - sums.gather(1, first)) / (end - first)


def _plan(
    fractions: Sequence[float], n_elements: Sequence[int], n_orders: int, apart: bool = False
) -> tuple[list[tuple[int, Counts, Counts]], list[list[int]]]:
    """What to run: the different (order, first and end of the ranks that are gone of each input); where fractions are.

    Nothing gone and everything gone look the same under every order, and are run once.
    """
    n_gone = [tuple(int(fraction * n + 0.5) for n in n_elements) for fraction in fractions]
    if apart and any(0 in map(sub, end, first) for first, end in pairwise([(0,) * len(n_elements), *n_gone])):
        got = f"{len(fractions)} groups of {min(n_elements)} parts"
        raise InputError("Groups of at least one part each.", got, "fractions=(0.25, 0.5, 0.75, 1), fewer groups.")
    none = (0,) * len(n_elements)
    gone = list(zip([none, *n_gone[:-1]] if apart else [none] * len(n_gone), n_gone, strict=True))
    ends = (none, none), (none, tuple(n_elements))
    steps: dict[tuple[int, Counts, Counts], int] = {}
    places = [
        [steps.setdefault((0 if part in ends else order, *part), len(steps)) for part in gone]
        for order in range(n_orders)
    ]
    return list(steps), places


def _among(among: Tensor | None, maps: Tensor) -> Tensor:
    """What may be removed, of each map at least one part."""
    if among is None:
        return torch.ones_like(maps, dtype=torch.bool)
    if among.shape != maps.shape or among.dtype != torch.bool or not among.flatten(1).any(1).all():
        raise InputError(
            f"`among` of shape {tuple(maps.shape)} and type bool, with something to remove in each row.",
            f"shape {tuple(among.shape)}, {among.dtype}",
            "removable_words(ids, attention_mask, special_ids) for texts.",
        )
    return among.to(maps.device)


def check_fractions(fractions: Sequence[float], least: int = 2) -> tuple[float, ...]:
    """Shares of the parts that go away, one after the other."""
    if isinstance(fractions, str) or not isinstance(fractions, Iterable):
        raise OptionError("`fractions` must be a sequence of numbers.", shown(fractions), "fractions=(0, 0.5, 1).")
    found = tuple(number("fractions", f, least=0, most=1, hint="fractions=(0, 0.5, 1).") for f in fractions)
    if len(found) < least or not all(a < b for a, b in pairwise(found)):
        wanted = f"`fractions` must increase, at least {least} of them."
        raise OptionError(wanted, shown(fractions), "sorted(set(fractions)).")
    return found


def _check(
    inputs: Tensor,
    target: int | Tensor,
    relevance: Tensor,
    fractions: Sequence[float],
    remover: Any,
    internal_batch_size: int | None,
) -> Tensor:  # the target, shape: (B,)
    for name, given in (("inputs", inputs), ("relevance", relevance)):
        if not isinstance(given, Tensor):
            raise InputError(f"`{name}` as a tensor.", type(given).__name__, f"torch.from_numpy({name}).")
    if inputs.dim() not in (2, 4) or not len(inputs):
        got = f"inputs of shape {tuple(inputs.shape)}"
        raise InputError("At least one image: (B, C, H, W); or text: (B, T).", got, "inputs.unsqueeze(0) for one.")
    if len(relevance) != len(inputs):
        got = f"{len(relevance)} maps for {len(inputs)} images"
        raise InputError("One map per image.", got, "the maps of this very batch.")
    target = to_tensor(target, inputs.device)
    if target.is_floating_point() or target.shape not in ((), (len(inputs),)):
        raise TargetError(
            f"One class for all images, or one for each of {len(inputs)}.",
            f"target of shape {tuple(target.shape)} and {target.dtype}",
            "an int, or argmax(1) of one-hot rows.",
        )
    check_fractions(fractions)
    check_remover(remover)
    integer_or_none("internal_batch_size", internal_batch_size, hint=IN_MEMORY)
    return target.long().expand(len(inputs))
