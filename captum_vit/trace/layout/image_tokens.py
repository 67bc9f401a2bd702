"""Which tokens of a language model are made of pictures, and of which patches each: found by changing pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from captum._utils.common import _format_additional_forward_args
from torch import Tensor, nn

from captum_vit.description.bare import WithoutBranches
from captum_vit.description.two_towers import TwoTowers, is_words_and_pictures
from captum_vit.errors import InputError, TraceError, UnsupportedModelError
from captum_vit.models.modules import module_of
from captum_vit.options import kind_of
from captum_vit.sites.site import Place, reached
from captum_vit.trace.layout.pictures import Pictures, given_to_tower, pictures_of
from captum_vit.trace.layout.reach import mixed, moved, single_readers
from captum_vit.trace.run.describe import remembered, shapes_of, towers_of
from captum_vit.trace.run.state import checked_args, checked_inputs, undisturbed


@dataclass(frozen=True)
class ImageTokens:
    """The tokens of a language model that are made of pictures.

    Args:
        rows: (B, N) whether a token moves when pixels are changed.
        reader: (M,) for each token of the tower of pictures, numbered through all pictures, the token of the language
            model that is made of it: its number among all B N. -1 for one of which none is made, or several.
        pictures: where the tower's tokens lie.
    """

    rows: Tensor
    reader: Tensor
    pictures: Pictures

    def images(
        self,
        relevance: Tensor,  # shape: (B, N), of the language model's tokens
    ) -> list[Tensor]:  # shape of each: (h, w)
        """A map of each picture: the relevance of an image token, divided evenly over the patches that it is made of.

        Raises:
            UnsupportedModelError: an image token is made of patches that others are made of too.
        """
        of_each = torch.bincount(self.reader[self.reader >= 0], minlength=self.rows.numel())
        without = int(((of_each == 0) & self.rows.flatten()).sum())
        if without:
            raise UnsupportedModelError(
                "Image tokens that are made of patches of their own.",
                f"{without} of {int(self.rows.sum())} image tokens that are not",
                "the map at the patches themselves, such as DecompX gives.",
            )
        share = relevance.flatten() / of_each.clamp_min(1)
        return self.pictures.maps(share[self.reader.clamp_min(0)].masked_fill(self.reader < 0, 0))


def image_tokens(model: nn.Module, inputs: tuple[Tensor, Tensor], additional_forward_args: Any = None) -> ImageTokens:
    """Which tokens of a vision-language model's text are made of pictures, and of which patches each.

    Image tokens are those that move, where they enter the language model, when pixels are changed; rows that the model
    puts between them, such as `image_newline`, do not. What a token is made of is found in a pass in which the tower's
    attentions hand nothing on, so that each token depends on its own pixels only. Costs four passes as far as the
    language model's first block, and some gradients from there to the tower.

    Args:
        model: the model, or a target module around it.
        inputs: token ids (B, N), and pixels as the processor gives them.
        additional_forward_args: further positional arguments, as in Captum.

    Raises:
        UnsupportedModelError: the model does not read words and pictures, or cuts pictures otherwise than into patches.
        InputError: the model refuses the inputs.

    Example:
        >>> at_tokens = GenAtt(Answer(vlm, n, inputs=batch)).attribute(ids, target=0)  # doctest: +SKIP
        >>> image_tokens(answer, (ids, pixel_values)).images(at_tokens)  # doctest: +SKIP
    """
    model = module_of(model)
    if not is_words_and_pictures(inputs):
        raise InputError("Token ids (B, N), and pixels.", kind_of(inputs), "(input_ids, pixel_values).")
    with undisturbed(model):
        given, args = (
            checked_inputs(inputs, model),
            checked_args(_format_additional_forward_args(additional_forward_args) or ()),
        )
        towers = towers_of(model, given, args)
        rows, reader = moved_by(model, towers.tokens, given, args), readers(model, towers, given, args)
        return ImageTokens(rows, reader, pictures_in(model, towers, given, args))


def pictures_in(model: nn.Module, towers: TwoTowers, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Pictures:
    """Where the tokens of a tower lie in these pictures: measured, or remembered of others of their shape.

    It is remembered by all that the tower is given but for the numbers in pixels, of which a model may leave out
    pictures without contents. See :func:`captum_vit.trace.layout.pictures.pictures_of`.
    """
    known, pixels = remembered(model).pictures, inputs[1]
    given = given_to_tower(model, towers, inputs, args)
    flat = pixels.flatten(-3) if pixels.dim() > 3 else pixels[:0]
    empty = flat.amax(-1) == flat.amin(-1) if len(flat) else flat
    key = (shapes_of(inputs, args), *((x.shape, tuple(x.flatten().tolist())) for x in (*given, empty)))
    if key not in known:
        known[key] = pictures_of(
            model, towers, inputs, args, given, lambda: patches_per_token(readers(model, towers, inputs, args))
        )
    return known[key]


def readers(
    model: nn.Module, towers: TwoTowers, inputs: tuple[Tensor, ...], args: tuple[Any, ...]
) -> Tensor:  # shape: (M,)
    """Of each token of the tower of pictures the one token of the language model that is made of it, or -1.

    Call it inside ``undisturbed``, under no rule.

    Raises:
        TraceError: the pass does not reach the language model, or the tower.
    """
    ids, pixels = inputs
    found: list[Tensor] = []
    base: list[Tensor] = []

    def leaf(x: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        base.append(x.detach()[None].requires_grad_())
        return base[0][0]

    handle = towers.patches.hook(leaf)
    try:
        with torch.no_grad(), WithoutBranches(towers.additions):
            seen = reached(towers.tokens, partial(model, ids, pixels, *args))
            found += [] if seen is None else [seen]
    finally:
        handle.remove()
    if not found or not base:
        raise TraceError("A language model that reads pictures.", "one that was not reached", "ids and their pixels.")
    with torch.enable_grad():
        tokens = found[0].reshape(1, -1, found[0].shape[-1])
    spelt = single_readers(tokens, base[0])
    n = base[0][0, ..., 0].numel()
    return base[0].new_full((n,), -1).long() if spelt is None else spelt[0].reshape(n, -1).amax(1)


def moved_by(
    model: nn.Module, tokens: Place, inputs: tuple[Tensor, ...], args: tuple[Any, ...]
) -> Tensor:  # shape: (B, N)
    """Which tokens at a place move when the pixels are mixed up."""
    ids, pixels = inputs
    before, after = (reached(tokens, partial(model, ids, x, *args)) for x in (pixels, mixed(pixels[None])[0]))
    if before is None or after is None:
        raise TraceError("A language model that reads pictures.", "one that was not reached", "ids and their pixels.")
    return moved(after - before, before)


def patches_per_token(
    reader: Tensor,  # shape: (M,)
) -> int | None:
    """Of how many patches each image token is made; None where that differs."""
    each = torch.bincount(reader[reader >= 0])
    each = each[each > 0].unique()
    return int(each) if len(each) == 1 else None
