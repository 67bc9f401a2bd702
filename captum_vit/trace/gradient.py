"""Gradient of a target at one site: the prefix of the network runs without a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from captum._utils.typing import TargetType
from torch import Tensor, nn

from captum_vit.errors import LayerError, TraceError
from captum_vit.models.modules import uncompiled
from captum_vit.models.spec import Transformer
from captum_vit.trace.score import select, transform
from captum_vit.trace.site import Site
from captum_vit.trace.state import refuse_opaque
from captum_vit.trace.watch import Watch

Layer = nn.Module | str | int | None


@dataclass
class Leaf:
    """A pass whose graph begins at a site."""

    tokens: Tensor  # shape: (B, N, D), the leaf
    output: Tensor  # shape: (B, K), with a graph
    watch: Watch


@dataclass
class SiteGradient:
    """Tokens at a site and the gradient of the target there."""

    tokens: Tensor  # shape: (B, N, D)
    grad: Tensor  # shape: (B, N, D)
    watch: Watch


def leaf_at(
    model: nn.Module,
    transformer: Transformer | None,
    site: Site,
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
) -> Leaf:
    """One forward pass, without a graph before the site.

    What runs before the site counts as constant, also where it reaches the output past the site
    (the residual stream beside an attention).
    """
    leaves: list[Tensor] = []

    def leaf(x: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        leaves.append(x.detach().requires_grad_())
        return leaves[-1]

    refuse_opaque(model)
    watch = Watch(model, transformer)
    watch.at(site, leaf)
    output = watch.run(inputs, args)
    if not leaves:
        raise LayerError(
            "A layer that runs when the model does.",
            f"{type(site.module).__name__}, which did not run or handled no tensor",
            "a block's norm or the block itself.",
        )
    if transformer is not None:
        refuse_several(len(leaves), site.module)
    return Leaf(leaves[-1], output, watch)


def refuse_several(times: int, module: nn.Module) -> None:
    """What runs several times in a pass has several maps."""
    if times > 1:
        raise TraceError(
            "A layer that runs once in a pass.",
            f"{type(module).__name__}, which ran {times} times",
            "the model inside of what calls it several times, on one input at a time.",
        )


def gradient_at(
    model: nn.Module,
    transformer: Transformer | None,
    site: Site,
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
    target: TargetType,
    score: str = "logit",
    **grad_kwargs: Any,
) -> SiteGradient:
    """One forward pass and a backward pass as far as the site."""
    at = leaf_at(model, transformer, site, inputs, args)
    value = select(transform(at.output, score, model), target)
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
            "a layer before the output, in a model that does not detach or run under no_grad by itself.",
        )
    with torch.enable_grad():
        total = value.sum()
    (grad,) = torch.autograd.grad(total, [tokens], **{"allow_unused": True, **grad_kwargs})
    return torch.zeros_like(tokens) if grad is None else grad


def reading_point(transformer: Transformer, layer: int) -> Site:
    """Where a block's attention reads: after the pre-attention norm, or the block's input if post-norm."""
    block = block_of(transformer, layer)
    if transformer.post_norm:
        return Site(transformer.entrance(layer_index(transformer, layer)), "input")
    return Site(transformer.part(block, transformer.spec.attn), "input")


def block_of(transformer: Transformer, layer: int) -> nn.Module:
    """The block with this index; negative ones count from the end."""
    return transformer.blocks[layer_index(transformer, layer)]


def layer_index(transformer: Transformer, layer: int) -> int:
    """A block's index as 0 ... L-1."""
    depth = len(transformer.blocks)
    if isinstance(layer, bool) or not isinstance(layer, int) or not -depth <= layer < depth:
        raise LayerError(f"A block from 0 to {depth - 1} (or -1 to {-depth}).", repr(layer), "-1 for the last block.")
    return layer % depth


def block_index(model: nn.Module, transformer: Transformer, layer: Layer) -> int:
    """A block's index as 0 ... L-1, from an index, the block, a module inside it, or its name; None is the last."""
    if layer is None or isinstance(layer, int | float):
        return layer_index(transformer, -1 if layer is None else layer)
    module = uncompiled(literal_module(model, layer))
    for index, block in enumerate(transformer.blocks):
        if any(module is m for m in block.modules()):
            return index
    raise LayerError(
        "A block, or a module inside one: attention belongs to a block.",
        f"{type(module).__name__}, which is in no block",
        f"layer=None, or an int from 0 to {len(transformer.blocks) - 1}.",
    )


def literal_module(model: nn.Module, layer: nn.Module | str) -> nn.Module:
    """A module inside this model, given itself or by its dotted name."""
    if layer is model or layer == "":
        hint = "a name from `model.named_modules()`, or an int for a block."
        raise LayerError(f"A module inside {type(model).__name__}.", "the model itself", hint)
    if isinstance(layer, str):
        try:
            return model.get_submodule(layer)
        except AttributeError as error:
            raise LayerError(
                f"The name of a module of {type(model).__name__}.",
                f"{layer!r} ({error})",
                "a name from `model.named_modules()`, or an int for a block.",
            ) from error
    if isinstance(layer, nn.Module) and any(layer is m for m in model.modules()):
        return layer
    raise LayerError(
        f"A module of this {type(model).__name__}, its dotted name, or the index of a block.",
        f"{type(layer).__name__} that is not part of it",
        "the layer of the very model object that is explained (not of a copy).",
    )
