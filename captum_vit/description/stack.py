"""Layers as stacks: which follow each other, what leaves each, and what other layers lie around them."""

from __future__ import annotations

from itertools import pairwise

from captum_vit.description.graph import Graph
from captum_vit.description.norms import is_norm_of, norm_behind
from captum_vit.description.stream import Layer, continues, index_of, normed, operands, unscaled
from captum_vit.description.values import Value


def chained(layers: list[Layer]) -> list[list[Layer]]:
    """Layers in stacks: each stream is made from the one before and has its size."""
    chains: list[list[Layer]] = []
    for layer in layers:
        before = [c for c in chains if _follows(layer, c[-1])]
        if before:
            max(before, key=lambda c: c[-1].end.number).append(layer)
        else:
            chains.append([layer])
    return chains


def _follows(layer: Layer, before: Layer) -> bool:
    as_large = layer.joined.tensor.numel() == before.joined.tensor.numel() and layer.width == before.width
    again = layer.stream.has_numbers_of(before.stream)  # two attentions side by side
    return as_large and (again or layer.stream.made_from(before.end))


def find_ends(graph: Graph, chain: list[Layer]) -> None:
    """What leaves each layer: its end, or the norm that ends it.

    The norm is what enters the next layer, or is made next. One norm between two layers, in a stack whose others have
    none, stands between them and belongs to neither.
    """
    pairs = list(pairwise(chain))
    with_norm = {layer for layer, following in pairs if _ends_with(layer, following)}
    for layer, following in pairs:
        if layer in with_norm and (layer.post_norm or len(with_norm) == len(pairs)):
            layer.out = following.stream
        elif layer.post_norm and not following.stream.has_numbers_of(layer.end):
            layer.out = norm_behind(graph, layer.end) or layer.end
    last = chain[-1]
    if last.post_norm or (pairs and len(with_norm) == len(pairs)):
        last.out = norm_behind(graph, last.end) or last.end


def _ends_with(layer: Layer, following: Layer) -> bool:
    """Whether what enters the next layer is a norm of the end of this one."""
    return not following.stream.has_numbers_of(layer.end) and is_norm_of(following.stream, layer.end)


def layers_before(graph: Graph, layer: Layer) -> tuple[Value, int]:
    """Back from what enters a layer through additions to their own stream and what has one origin of its size.

    Gives where these additions begin, and how many they are.
    """
    value, begin, count = layer.stream, layer.stream, 0
    while value.op is not None:
        sides = [(unscaled(stream, branch)[0], branch) for stream, branch in operands(value.op)]
        streams = [stream for stream, _ in sides if stream is not None]
        size = value.tensor.numel()
        origins = {v.root for v in value.op.takes if v.tensor.numel() == size and graph.depends(v)}
        if streams:
            value = begin = streams[0]
            count += 1
        elif len(origins) == 1:
            value = origins.pop()
        else:
            break
    return begin, count


def run_past(graph: Graph, chain: list[Layer]) -> bool:
    """Whether the scores are made of tokens of earlier blocks by a path that does not run through the last one."""
    first, out = chain[0].stream, chain[-1].out
    waiting, seen = list(graph.outputs), set[Value]()
    while waiting:
        value = waiting.pop()
        if value.has_numbers_of(first):
            return True
        if value in seen or value.has_numbers_of(out) or not value.made_from(first):
            continue
        seen.add(value)
        waiting += value.op.takes if value.op else ()
    return False


def layers_behind(graph: Graph, out: Value) -> Value:
    """Where further additions to the stream lead, behind what leaves the last layer."""
    trunk = out
    for op in graph.ops[index_of(out) + 1 :]:
        for stream, branch in operands(op):
            if branch.made_from(trunk) and (continues(stream, trunk) or normed(stream, trunk, branch)):
                trunk = op.makes[0]
                break
    return trunk
