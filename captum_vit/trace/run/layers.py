"""Layers as people name them: a block's index, a module, its dotted name; and where a block is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from captum_vit.errors import LayerError, OptionError
from captum_vit.models.modules import uncompiled
from captum_vit.models.transformer import Block, Transformer
from captum_vit.options import shown
from captum_vit.sites.site import Place

Layer = nn.Module | str | int | None


def reading_point(transformer: Transformer, layer: int) -> Place:
    """Where a block's attention reads: after the pre-attention norm, or the block's input if post-norm."""
    place: Place = transformer.part(layer_index(transformer, layer), "attn_in")
    return place


def block_of(transformer: Transformer, layer: int) -> Block:
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
        if block.module is not None and any(module is m for m in block.module.modules()):
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


def chosen_layers(transformer: Transformer, layers: Iterable[int] | None) -> list[int]:
    """Blocks that take part, as 0 ... L-1 in their order; None: all."""
    if layers is None:
        return list(range(len(transformer.blocks)))
    chosen = sorted({layer_index(transformer, layer) for layer in layers})
    if not chosen:
        raise OptionError("At least one layer.", "none", "layers=None for all of them.")
    return chosen


def listed(name: str, layers: Any) -> list[Any] | None:
    """Indices of blocks in a list, so that an iterator serves several calls; None stays for all."""
    if layers is None:
        return None
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        wanted = f"`{name}` must be indices of blocks, or None for all."
        raise OptionError(wanted, shown(layers), f"{name}=[0, 1], or range(6).")
    chosen = list(layers)
    if not chosen:
        raise OptionError(f"At least one layer in `{name}`.", "none", f"{name}=None for all of them.")
    return chosen
