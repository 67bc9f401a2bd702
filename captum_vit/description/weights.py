"""Which weights belong to which block: those that its tokens are made of, and no earlier ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_vit.description.graph import recorded
from captum_vit.description.places import Places
from captum_vit.description.values import Value
from captum_vit.errors import TraceError
from captum_vit.models.modules import modules_of
from captum_vit.models.per_sample import first_samples
from captum_vit.models.transformer import Transformer
from captum_vit.sites.calls import ValueSite
from captum_vit.sites.site import Place, Site


def weights_of_blocks(
    model: nn.Module, transformer: Transformer, inputs: tuple[Tensor, ...], args: tuple[Any, ...]
) -> dict[str, list[nn.Parameter]]:
    """Each floating parameter that the scores are made of, under the first of these that is made of it too: "embedding"
    (the tokens that enter the first block), "block 0", "block 1", ... (the tokens that leave it), and "head".

    Found in one pass of one sample, or of all where the code depends on them. No name of a module is read. What blocks
    share belongs to the first of them; one without weights of its own is left out. Call it inside
    :func:`captum_vit.trace.run.state.undisturbed`.

    Raises:
        TraceError: a place of the transformer was not met in this pass.
    """
    few = first_samples(inputs, args) if transformer.fixed else (inputs, args)
    graph = recorded(model, *few)
    try:
        places = Places(graph, [], ())
        stages = {"embedding": [_value(places, transformer.blocks[0].entrance)]}
        stages |= {f"block {k}": [_value(places, block.out)] for k, block in enumerate(transformer.blocks)}
        own = (p for module in modules_of(model) for p in module._parameters.values())
        left = {p: graph.value_of(p) for p in own if p is not None and p.is_floating_point()}
        found: dict[str, list[nn.Parameter]] = {}
        for name, made in (stages | {"head": graph.outputs}).items():
            first = [p for p, weight in left.items() if any(value.made_from(weight) for value in made)]
            if first:
                found[name] = first
            for p in first:
                del left[p]
        return found
    finally:
        graph.release()


def _value(places: Places, place: Place) -> Value:
    value = places.value_at(place) if isinstance(place, Site | ValueSite) else None
    if value is None:
        hint = "inputs of the shape that was described."
        raise TraceError("Every place of the transformer.", f"a pass without {place.label}", hint)
    return value
