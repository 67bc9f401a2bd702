"""Gradient of a target at one site: the prefix of the network runs without a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from captum._utils.typing import TargetType
from torch import Tensor

from captum_vit.errors import LayerError, TraceError
from captum_vit.sites.site import Place
from captum_vit.trace.run.finite import refuse_not_finite
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.score import select, transform
from captum_vit.trace.run.state import refuse_opaque
from captum_vit.trace.run.watch import Watch, refuse_no_way_back


@dataclass
class Leaf:
    """A pass whose graph begins at a site."""

    tokens: Tensor  # shape: (B, N, D), the leaf
    output: Tensor  # shape: (B, K), with a graph
    watch: Watch
    times: int  # how often the site was reached


@dataclass
class SiteGradient:
    """Tokens at a site and the gradient of the target there."""

    tokens: Tensor  # shape: (B, N, D)
    grad: Tensor  # shape: (B, N, D)
    watch: Watch


def leaf_at(call: Pass, site: Place) -> Leaf:
    """One forward pass, without a graph before the site.

    What runs before the site counts as constant, also where it reaches the output past the site
    (the residual stream beside an attention).
    """
    leaves: list[Tensor] = []

    def leaf(x: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        leaves.append(x.detach().requires_grad_())
        return leaves[-1]

    refuse_opaque(call.modules)
    watch = Watch(call, place=site)
    watch.at(site, leaf)
    output = watch.run()
    if not leaves:
        raise LayerError(
            "A layer that runs when the model does.",
            f"{site.label}, which did not run or handled no tensor",
            "a block's norm or the block itself.",
        )
    if call.found is not None:
        refuse_several(len(leaves), site.label)
    refuse_not_finite(output.detach(), "output", infinite=False)
    return Leaf(leaves[-1], output, watch, len(leaves))


def refuse_several(times: int, label: str) -> None:
    """What runs several times in a pass has several maps."""
    if times > 1:
        raise TraceError(
            "A layer that runs once in a pass.",
            f"{label}, which ran {times} times",
            "the model inside of what calls it several times, on one input at a time.",
        )


def gradient_at(call: Pass, site: Place, target: TargetType, score: str = "logit", **grad_kwargs: Any) -> SiteGradient:
    """One forward pass and a backward pass as far as the site."""
    at = leaf_at(call, site)
    value = select(transform(at.output, score, call.model), target)
    return SiteGradient(at.tokens.detach(), gradient_of(value, at.tokens, **grad_kwargs), at.watch)


def gradient_of(
    value: Tensor,  # shape: (R,)
    tokens: Tensor,  # a leaf
    **grad_kwargs: Any,
) -> Tensor:
    """The gradient at a leaf; zero where the value does not depend on it."""
    if not value.requires_grad:
        raise TraceError(
            "An output that depends on the layer with a gradient.",
            "an output without a graph",
            "a layer before the output, in a model that does not detach or run under no_grad by itself; under a rule "
            "that holds softmax constant, the scores before a softmax at the end.",
        )
    with torch.enable_grad():
        total = value.sum()
    try:
        (grad,) = torch.autograd.grad(total, [tokens], **{"allow_unused": True, **grad_kwargs})
    except RuntimeError as error:
        refuse_no_way_back(error)
        raise
    return torch.zeros_like(tokens) if grad is None else grad
