"""Which module is the tower of a stack of blocks."""

from __future__ import annotations

from torch import nn

from captum_vit.description.graph import Graph
from captum_vit.description.stream import Layer
from captum_vit.description.values import Call
from captum_vit.models.modules import named_tower, uncompiled


def tower_of(graph: Graph, model: nn.Module, chain: list[Layer]) -> nn.Module:
    """The smallest module whose call holds every block of a stack and is given an input, not tokens of the stack.

    An encoder takes the tokens that the embedding made; the tower is what takes an image, or words. Where no call
    does, it is the tower that a target module names, or the model.
    """
    around = [c for c in graph.calls if all(c.holds(layer.attention.op) for layer in chain)]
    embedding = [c for c in around if not _takes_tokens(c, chain[0])]
    if embedding:
        return uncompiled(embedding[-1].module)
    return named_tower(model) or model


def _takes_tokens(call: Call, first: Layer) -> bool:
    """Whether it is given as many vectors as the stack has tokens."""
    stream = first.joined.tensor
    if not call.takes or not call.takes[0].tensor.is_floating_point():
        return not call.takes
    x = call.takes[0].tensor
    return x.dim() == stream.dim() and x.shape[:-1] == stream.shape[:-1]


_NAMES = {"transformers": "Hugging Face"}


def family(tower: nn.Module) -> str:
    """Package and class, for people."""
    package = type(tower).__module__.partition(".")[0]
    return f"{_NAMES.get(package, package)} {type(tower).__name__}"
