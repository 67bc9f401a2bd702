"""A language model that is given pictures, as one pass shows it: where its words enter, and where the patches do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from captum_vit.description.attention import attentions
from captum_vit.description.graph import Graph, recorded
from captum_vit.description.places import Places
from captum_vit.description.stream import Layer, layer_of
from captum_vit.description.values import Call, Op, Value
from captum_vit.errors import UnsupportedModelError
from captum_vit.models.modules import uncompiled
from captum_vit.models.transformer import Addition
from captum_vit.sites.site import Place, Site


@dataclass(frozen=True)
class TwoTowers:
    """The places of a model that reads words and pictures.

    Args:
        words: the vectors of the words, as they leave their table.
        patches: the tokens that enter the first block of the tower that reads the pictures.
        tokens: the tokens that enter the first block that reads the words.
        eyes: the module that is given the pixels, and holds that tower.
        additions: what adds an attention to the stream of that tower.
        blocks: the modules that are blocks, of both.
    """

    words: Place
    patches: Place
    tokens: Place
    eyes: nn.Module
    additions: tuple[Addition, ...]
    blocks: tuple[nn.Module, ...]


def is_words_and_pictures(inputs: Any) -> bool:
    """Whether these are token ids (B, N), and then pixels: floating-point numbers of two axes or more, and no mask."""
    if not (isinstance(inputs, tuple) and len(inputs) == 2 and all(isinstance(x, Tensor) for x in inputs)):
        return False
    ids, pixels = inputs
    whole = not ids.is_floating_point() and not ids.is_complex()
    return whole and ids.dim() == 2 and pixels.is_floating_point() and pixels.dim() > 1 and pixels.shape != ids.shape


def two_towers(model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> TwoTowers:
    """The two towers, by one pass over ids and pixels, whose tensors are held meanwhile.

    The tower of the pictures is where tokens attend that are made of pixels, and not of words. Call it inside
    ``undisturbed``.

    Raises:
        UnsupportedModelError: no words are looked up in a table, or no blocks read the pictures; it says which.
    """
    graph = recorded(model, inputs, args)
    try:
        ids, pixels = (graph.value_of(x) for x in inputs)
        found = [(a, layer_of(graph, a)) for a in attentions(graph)]
        seeing = [layer for a, layer in found if a.context.made_from(pixels) and not a.context.made_from(ids)]
        reading = [layer for a, layer in found if a.context.made_from(ids)]
        pictured, worded = _layers(model, seeing, "pictures"), _layers(model, reading, "words")
        patches = _entrance(graph, pictured)
        return TwoTowers(
            words=_words(graph, model, ids, pixels),
            patches=patches,
            tokens=_entrance(graph, worded),
            eyes=_eyes(graph, model, pictured, pixels, ids),
            additions=tuple({layer.joined: _addition(layer) for layer in pictured}.values()),
            blocks=tuple(dict.fromkeys(_modules(graph, [*pictured, *worded]))),
        )
    finally:
        graph.release()


def _layers(model: nn.Module, found: list[Layer | str], what: str) -> list[Layer]:
    """The attentions with a stream, of which the first must be one."""
    if not found or isinstance(found[0], str):
        why = found[0] if found and isinstance(found[0], str) else "no attention among what is made of them"
        raise UnsupportedModelError(
            f"A model with blocks that read {what}: an attention, and a stream to which it adds.",
            f"{type(model).__name__}, in which, of {what}: {why}",
            "a model with a transformer for its pictures and one for its words, or one of its inputs at a time.",
        )
    return [layer for layer in found if isinstance(layer, Layer)]


def _entrance(graph: Graph, layers: list[Layer]) -> Place:
    """Where the tokens enter the first block."""
    first = layers[0]
    place = Places(graph, layers, tuple(first.joined.tensor.shape)).entering(first.stream, None)
    if place.of > 1 and isinstance(place, Site):
        raise UnsupportedModelError(
            "A model that runs its blocks once, for all pictures together.",
            f"a {place.label} that runs {place.of} times in a pass",
            "one picture at a time.",
        )
    return place


def _words(graph: Graph, model: nn.Module, ids: Value, pixels: Value) -> Place:
    """Where the vectors of words leave the table in which they are looked up by their ids."""
    for op in graph.ops:
        if op.name == "embedding" and op.takes[0].made_from(ids) and not op.takes[0].made_from(pixels):
            made, inner = op.makes[0], _around(graph, op)[-1]
            if inner.gives and inner.gives[0].made_from(made) and inner.gives[0].tensor.shape == made.tensor.shape:
                return Site(uncompiled(inner.module), "output", inner.nth, graph.times(inner.module))
            place = Places(graph, [], tuple(made.tensor.shape)).at(made)
            if place is not None:
                return place
    raise UnsupportedModelError(
        "Words whose vectors are looked up in a table (`torch.nn.functional.embedding`) by the ids that are given.",
        f"{type(model).__name__}, which looks none up",
        "input ids as the first input, pixels as the second.",
    )


def _eyes(graph: Graph, model: nn.Module, layers: list[Layer], pixels: Value, ids: Value) -> nn.Module:
    """The innermost call that holds the tower's blocks and is given pixels, and no words."""
    calls = _around(graph, layers[0].attention.op)
    given = [
        c for c in calls if any(v.made_from(pixels) for v in c.takes) and not any(v.made_from(ids) for v in c.takes)
    ]
    of_pixels = [c for c in given if any(v.tensor.numel() == pixels.tensor.numel() for v in c.takes)]
    return uncompiled((of_pixels or given or calls)[-1].module) if calls else model


def _around(graph: Graph, op: Op) -> list[Call]:
    """The module calls in which a torch call is made, outer ones first."""
    return [call for call in graph.calls if call.holds(op)]


def _addition(layer: Layer) -> Addition:
    op = layer.joined.op
    assert op is not None and op.number is not None  # an addition
    stream = next(k for k, value in enumerate(op.takes) if value is not layer.branch)
    return Addition(op.number, op.name, stream)


def _modules(graph: Graph, layers: list[Layer]) -> Iterable[nn.Module]:
    """Of each layer the outermost call that takes its stream and attends to no other."""
    for layer in layers:
        others = [other for other in layers if not other.stream.has_numbers_of(layer.stream)]
        for call in graph.taking.get(layer.stream.root, []):
            of_others = any(call.holds(other.attention.op) for other in others)
            op = layer.joined.op
            if op is not None and call.holds(op) and not of_others:
                yield uncompiled(call.module)
                break
