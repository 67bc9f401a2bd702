"""Relevance carried on from the tokens to the pixels, through the embedding of an image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from captum._utils.typing import TargetType
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import OptionError
from captum_vit.trace.modes.redistribution import Added, Passed, Redistributed
from captum_vit.trace.modes.relevance import ADDED, Relevance, carried, is_stream, refuse_half_precision, wide
from captum_vit.trace.replay.gradient import gradient_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.score import select
from captum_vit.trace.run.state import dtype_of
from captum_vit.trace.run.watch import Watch


class FromPixels(Relevance):
    r"""As :class:`Relevance`, with the rules of an embedding as long as no block is entered.

    Convolutions of the image have the rule for bounded inputs, with l and h the least and the largest entry of a
    sample, :math:`z = x w - l w^+ - h w^-`. A table of positions that is added gets its share as a summand, and
    takes it out of the map.
    """

    embedding = True

    def _propagated(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.embedding and func is F.conv2d:
            return _bounded(*wide(args), **wide(kwargs))
        if self.embedding and func in ADDED and _is_table(args[1], args[0]):
            return Added.apply(*torch.broadcast_tensors(*wide(args)), self.batch)
        return super()._propagated(func, args, kwargs)


def relevance_of_pixels(call: Pass, target: TargetType) -> Tensor:  # shape: (B, 3, H, W)
    """One pass from the pixels to the score, and the relevance back. Call it inside ``undisturbed``."""
    image, *others = call.inputs
    if image.dim() != 4:
        raise OptionError("Pixels of an image.", f"an input of shape {tuple(image.shape)}", "attribute: its tokens.")
    refuse_half_precision(call.model)
    pixels = image.double().requires_grad_()
    mode, watch = FromPixels(len(call)), Watch(replace(call, inputs=(pixels, *others)))
    watch.at(call.transformer.blocks[0].entrance, lambda x: setattr(mode, "embedding", False))
    with torch.enable_grad(), carried(call.model):
        score = select(watch.run(mode), target)
        score = score * score.detach().ne(0)  # of a score of zero there is no relevance to hand back
    return gradient_of(score, pixels).to(dtype_of(call.model))


def _bounded(x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
    """A convolution of entries that lie between the least and the largest of their sample."""

    def z(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        parts = (x, weight), (low, weight.clamp(min=0)), (high, weight.clamp(max=0))
        whole, least, most = (F.conv2d(entries, w, None, *args, **kwargs) for entries, w in parts)
        return whole - least - most

    low, high = (edge(x.detach(), (1, 2, 3), keepdim=True).expand_as(x) for edge in (torch.amin, torch.amax))
    edges = (Passed.apply(x, low.clone), Passed.apply(x, high.clone))
    return Redistributed.apply(lambda x, *_: F.conv2d(x, weight, bias, *args, **kwargs), z, 1.0, x, *edges)


def _is_table(constant: Any, x: Any) -> bool:
    """Whether a constant has an entry for every entry of all tokens."""
    both = isinstance(constant, Tensor) and is_stream(x) and not is_stream(constant)
    return both and constant.dim() > 1 and constant.shape[-2:] == x.shape[-2:]
