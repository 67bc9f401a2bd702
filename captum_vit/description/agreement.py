"""A transformer described by hand, held to what one pass shows."""

from __future__ import annotations

from captum_vit.description.graph import Graph
from captum_vit.description.stream import Layer
from captum_vit.description.values import Value
from captum_vit.errors import UnsupportedModelError
from captum_vit.models.transformer import Block, Transformer
from captum_vit.sites.site import Place, Site


def refuse_contradiction(graph: Graph, layers: list[Layer], described: Transformer) -> None:
    """Compare places by the values that are there.

    Raises:
        UnsupportedModelError: the pass shows something else; both are named.
    """
    found = len(layers)
    if found != len(described.blocks):
        raise _contradiction(described, f"{len(described.blocks)} blocks", f"{found}, in which tokens attend")
    for k, (block, layer) in enumerate(zip(described.blocks, layers, strict=True)):
        if block.before_norm is None and layer.normed_end:
            raise _contradiction(described, f"block {k} without `last_norm`", "a norm on the stream at its end")
        for name, place, value in _places(block, layer):
            at = None if place is None else _value_at(graph, place)
            if at is not None and value is None:
                raise _contradiction(described, f"block {k} with `{name}`", _why_none(name, layer))
            later = name == "out" and at is not None and at.made_from(layer.end)  # a mask may follow, in the block
            if at is not None and value is not None and not later and not _same(at, value):
                raise _contradiction(described, f"`{name}` of block {k} at {_words(place)}", _whereabouts(graph, value))


def _places(block: Block, layer: Layer) -> list[tuple[str, Place | None, Value | None]]:
    """What a description says, beside what the pass shows."""
    return [
        ("before_mid", block.before_mid, layer.joined if layer.normed_mid else None),
        ("before_norm", block.before_norm, layer.end if layer.normed_end else None),
        ("entrance", block.entrance, layer.stream),
        ("attn_in", block.attn_in, layer.reads),
        ("mid", block.mid, layer.mid),
        ("out", block.out, layer.out),
    ]


def _value_at(graph: Graph, place: Place) -> Value | None:
    """What one pass had at a place of a module; None where the module did not run, or did not take a tensor first."""
    if not isinstance(place, Site):
        return None
    calls = [c for c in graph.calls if c.module is place.module]
    values = (c.takes if place.side == "input" else c.gives for c in calls[place.nth : place.nth + 1])
    return next((some[0] for some in values if some), None)


def _same(one: Value, other: Value) -> bool:
    """The same numbers, but for their shape."""
    if one.has_numbers_of(other):
        return True
    x, y = one.tensor, other.tensor
    return x.numel() == y.numel() and bool((x.flatten() == y.to(x.dtype).flatten()).all())


def _why_none(name: str, layer: Layer) -> str:
    if name == "mid":
        return "attention and feed-forward that run in parallel"
    return f"no norm on the stream there: {'a norm before the next block' if layer.post_norm else 'a pre-norm block'}"


def _words(place: Place | None) -> str:
    assert isinstance(place, Site)
    return f"the {place.side} of {place.label}"


def _whereabouts(graph: Graph, value: Value) -> str:
    """The module calls that take or give a value, for people."""
    takers = [f"the input of {type(c.module).__name__}" for c in graph.calls if c.takes and _same(c.takes[0], value)]
    givers = [f"the output of {type(c.module).__name__}" for c in graph.calls if c.gives and _same(c.gives[0], value)]
    made = "an input" if value.root.op is None else f"the result of {value.root.op.name}"
    return "what the pass has at " + ", ".join(dict.fromkeys([*takers, *givers]) or [made])


def _contradiction(described: Transformer, wanted: str, got: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"A description that fits the model: {described.family} has {wanted}.",
        got,
        "captum_vit.register_spec with these places, or no description: then the places are found by a pass.",
    )
