"""A transformer described by one pass."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from captum_vit.description.agreement import refuse_contradiction
from captum_vit.description.attention import attentions
from captum_vit.description.graph import Graph, recorded
from captum_vit.description.mixing import mixing
from captum_vit.description.norms import FEWEST, norm_module
from captum_vit.description.passes import codes, varied_samples
from captum_vit.description.places import Places, name_in
from captum_vit.description.projection import projection
from captum_vit.description.refusals import checked_chain, refused
from captum_vit.description.stack import chained, find_ends, run_past
from captum_vit.description.stream import Layer, add_feed_forwards, layer_of
from captum_vit.description.tower import family, tower_of
from captum_vit.description.values import Call
from captum_vit.errors import MODEL_ERRORS, CaptumVitError
from captum_vit.models.modules import uncompiled
from captum_vit.models.per_sample import first_samples
from captum_vit.models.transformer import Block, Transformer

LOOKED_AT = 256  # numbers of a sample, before all of them


def measured(model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Transformer:
    """The transformer in a model, found by one pass over some inputs.

    No name of a class or attribute is used: attention is where probabilities over tokens meet values, the stream is
    what its result is added to, and so on. Costs one forward pass of one sample, and holds its tensors meanwhile.
    Another one tries whether tokens reach each other behind the attentions, where the torch calls there leave it open.
    Where places are numbers of torch calls, or the code depends on what is computed, one of all compares their code.
    Call it inside :func:`captum_vit.trace.run.state.undisturbed`.

    Args:
        model: what runs.
        inputs: what is explained, batch first.
        args: further arguments of the forward, such as a mask.

    Raises:
        UnsupportedModelError: the blocks cannot be followed; what was found is named.
    """
    graph, few = _recorded_few(model, inputs, args, 1)
    rows = max((attention.rows for attention in attentions(graph)), default=FEWEST)
    if min(rows, _distinct(inputs[0][0])) < FEWEST:  # a norm is known by that many tokens, none like another
        graph.release()
        few = varied_samples(inputs, args, FEWEST)
        graph = recorded(model, *few)
    found = _read(graph, model, *few)
    if few[0] is inputs or found.fixed or graph.names == codes(model, inputs, args):
        return found
    return _read(recorded(model, inputs, args), model, inputs, args)


def _distinct(x: Tensor) -> int:
    """How many numbers a sample is made of; among its first ones, where that are enough."""
    few = len(x.flatten()[:LOOKED_AT].unique())
    return few if few >= FEWEST else len(x.unique())


def _recorded_few(
    model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...], n: int
) -> tuple[Graph, tuple[tuple[Tensor, ...], tuple[Any, ...]]]:
    """A pass of the first n samples, and what it was given; of all where the model takes no smaller batch."""
    few = first_samples(inputs, args, n)
    try:
        return recorded(model, *few), few
    except MODEL_ERRORS as error:
        if few[0] is inputs or isinstance(error, CaptumVitError):
            raise
    return recorded(model, inputs, args), (inputs, args)


def _read(graph: Graph, model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Transformer:
    """What the values of a pass over these inputs tell; they are let go."""
    batch = len(inputs[0])
    try:
        depending = [attention for attention in attentions(graph) if graph.depends(attention.context)]
        found = [(attention, layer_of(graph, attention)) for attention in depending]
        layers = [layer for _, layer in found if isinstance(layer, Layer)]
        add_feed_forwards(graph, layers)
        others = [(attention, why) for attention, why in found if isinstance(why, str)]
        chain = checked_chain(graph, model, batch, chained(layers), others)
        find_ends(graph, chain)
        if mixed := mixing(graph, model, inputs, args, chain):
            raise refused(model, mixed)
        width, numbers = chain[0].width, chain[0].joined.tensor.numel()
        places = Places(graph, chain, (batch, numbers // width // batch, width))
        tower = tower_of(graph, model, chain)
        blocks = [_block(graph, places, layer) for layer in chain]
        blocks[1:] = [
            replace(block, follows=places.follow(before.out, block.entrance)) for before, block in pairwise(blocks)
        ]
        calls = tuple(graph.names) if graph.decides else ()
        past = run_past(graph, chain)
        return Transformer(tower, blocks, name_in(model, tower), family(tower), calls=calls, run_past=past)
    finally:
        graph.release()


def _block(graph: Graph, places: Places, layer: Layer) -> Block:
    call, heads = places.block_call(layer), projection(graph, layer)
    entrance = places.entering(layer.stream, call)
    out = places.entering(layer.out, None) if call is None else places.leaving(layer.out, call)
    mid, first, last = layer.mid, layer.normed_mid, layer.normed_end
    return Block(
        entrance=entrance,
        attn_in=places.read(layer, call) or entrance,
        mid=None if mid is None else places.seen(mid),
        out=out,
        before_mid=places.seen(layer.joined) if first else None,
        before_norm=places.seen(layer.end) if last else None,
        first_norm=norm_module(graph, layer.joined, mid) if first else None,
        last_norm=norm_module(graph, layer.end, layer.out) if last else None,
        mid_norm=None if mid is None or first or last else norm_module(graph, mid),
        out_proj=heads.module,
        attn_scale=heads.scale,
        between=heads.between,
        module=None if call is None else uncompiled(call.module),
        attends=None if call is None else _attends(graph, layer, call),
        missing=_missing(layer, heads.between),
    )


def _attends(graph: Graph, layer: Layer, block: Call) -> nn.Module | None:
    """The innermost module of a block that runs once and holds its attention, from the softmax on."""
    attention = layer.attention
    ops = [attention.op, *(looked.op for looked in attention.looks if looked.op and looked.op.name == "softmax")]
    inside = (call for call in graph.calls if block.start <= call.start and call.end <= block.end)
    calls = [call for call in inside if all(map(call.holds, ops)) and graph.times(call.module) == 1]
    return uncompiled(calls[-1].module) if calls else None


def _missing(layer: Layer, between: str) -> dict[str, str]:
    """For each part that a block may lack, what there is in its place."""
    beside = "its attention and its feed-forward run side by side"
    norms = {True: "the norm there is no module", False: "no norm stands there"}
    return {
        "mid": beside if layer.parallel else "nothing follows its attention",
        "before_mid": norms[layer.normed_mid],
        "before_norm": norms[layer.normed_end],
        "first_norm": norms[layer.normed_mid],
        "last_norm": norms[layer.normed_end],
        "mid_norm": beside if layer.parallel else "no module is the norm before its feed-forward",
        "out_proj": f"{between} between its heads and the stream",
    }


def held_to_pass(
    model: nn.Module, described: Transformer, inputs: tuple[Tensor, ...], args: tuple[Any, ...]
) -> Transformer:
    """A description by hand, held to one pass; what the pass does not show is believed.

    Raises:
        UnsupportedModelError: the pass shows something else; both are named.
    """
    graph, _ = _recorded_few(model, inputs, args, FEWEST)  # one token each shows a norm
    try:
        calls = [c for c in graph.calls if c.module is described.tower]
        within = [a for a in attentions(graph) if not calls or any(c.holds(a.op) for c in calls)]
        layers = [layer for layer in (layer_of(graph, a) for a in within) if isinstance(layer, Layer)]
        add_feed_forwards(graph, layers)
        chain = max(chained(layers), key=len, default=[])
        if chain:
            find_ends(graph, chain)
            refuse_contradiction(graph, chain, described)
        return replace(described, run_past=bool(chain) and run_past(graph, chain))
    finally:
        graph.release()
