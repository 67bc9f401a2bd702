"""A transformer described by one pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_vit.description.agreement import refuse_contradiction
from captum_vit.description.attention import attentions
from captum_vit.description.norms import norm_module
from captum_vit.description.places import Places, name_in
from captum_vit.description.projection import projection
from captum_vit.description.refusals import checked_chain
from captum_vit.description.stream import Layer, add_feed_forwards, chained, find_ends, layer_of
from captum_vit.description.tower import tower_of
from captum_vit.description.values import Graph
from captum_vit.models.modules import uncompiled
from captum_vit.models.transformer import Block, Transformer


def measured(model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Transformer:
    """The transformer in a model, found by one pass over some inputs.

    No name of a class or attribute is used: attention is where probabilities over tokens meet values, the stream is
    what its result is added to, and so on. Costs one forward pass, and holds its tensors until it returns. Call it
    inside :func:`captum_vit.trace.state.undisturbed`.

    Args:
        model: what runs.
        inputs: what is explained, batch first.
        args: further arguments of the forward, such as a mask.

    Raises:
        UnsupportedModelError: the blocks cannot be followed; what was found is named.
    """
    graph = Graph()
    graph.run(model, inputs, args)
    return _read(graph, model, len(inputs[0]))


def _read(graph: Graph, model: nn.Module, batch: int) -> Transformer:
    """What the values of a pass tell."""
    found = [(attention, layer_of(graph, attention)) for attention in attentions(graph)]
    layers = [layer for _, layer in found if isinstance(layer, Layer)]
    add_feed_forwards(graph, layers)
    chains = chained(layers)
    chain = checked_chain(graph, model, batch, chains, [(a, why) for a, why in found if isinstance(why, str)])
    find_ends(graph, chain)
    width, numbers = chain[0].width, chain[0].joined.tensor.numel()
    places = Places(graph, chain, (batch, numbers // width // batch, width))
    tower = tower_of(graph, model, chain)
    blocks = [_block(graph, model, places, layer) for layer in chain]
    return Transformer(tower, blocks, name_in(model, tower), _family(tower))


def _block(graph: Graph, model: nn.Module, places: Places, layer: Layer) -> Block:
    call = places.block_call(layer)
    heads = projection(graph, model, layer)
    entrance = places.entering(layer.stream, call)
    post_mid = layer.mid is not None and not layer.mid.has_numbers_of(layer.joined)
    post_end = layer.out is not layer.end
    out = places.entering(layer.out, None) if call is None else places.output_of(call)
    last_norm = norm_module(graph, layer.end, layer.out) or norm_module(graph, layer.end) if post_end else None
    return Block(
        entrance=entrance,
        attn_in=places.read(layer, call) or entrance,
        mid=None if layer.mid is None else places.seen(layer.mid),
        out=out,
        before_mid=places.seen(layer.joined) if post_mid else None,
        before_norm=places.seen(layer.end) if post_end else None,
        first_norm=norm_module(graph, layer.joined, layer.mid) if post_mid else None,
        last_norm=last_norm,
        mid_norm=None if layer.post_norm or layer.mid is None else norm_module(graph, layer.mid),
        out_proj=heads.module,
        attn_scale=heads.scale,
        between=heads.between,
        module=None if call is None else uncompiled(call.module),
        missing={},
    )


_NAMES = {"transformers": "Hugging Face"}


def _family(tower: nn.Module) -> str:
    """Package and class, for people."""
    package = type(tower).__module__.partition(".")[0]
    return f"{_NAMES.get(package, package)} {type(tower).__name__}"


def refuse_other(model: nn.Module, described: Transformer, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> None:
    """Hold a description by hand to one pass; what the pass does not show is believed.

    Raises:
        UnsupportedModelError: the pass shows something else; both are named.
    """
    graph = Graph()
    graph.run(model, inputs, args)
    calls = [c for c in graph.calls if c.module is described.tower]
    within = [a for a in attentions(graph) if not calls or any(c.holds(a.op) for c in calls)]
    layers = [layer for layer in (layer_of(graph, a) for a in within) if isinstance(layer, Layer)]
    add_feed_forwards(graph, layers)
    chain = max(chained(layers), key=len, default=[])
    if chain:
        find_ends(graph, chain)
        refuse_contradiction(graph, chain, described)
