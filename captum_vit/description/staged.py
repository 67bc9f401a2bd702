"""A network whose attention no method can follow, or that has none: blocks around the additions to its stream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.description.bare import WithoutBranches
from captum_vit.description.features import axis_like, features_of, norm_of_stream
from captum_vit.description.graph import Graph
from captum_vit.description.joins import Join, bare_pasts, chain_of, joins_of
from captum_vit.description.places import Places, name_in
from captum_vit.description.refusals import random_call
from captum_vit.description.stack import layers_behind
from captum_vit.description.tower import family
from captum_vit.description.values import Call, Value
from captum_vit.errors import UnsupportedModelError
from captum_vit.models.modules import named_tower, uncompiled
from captum_vit.models.transformer import Addition, Block, Transformer
from captum_vit.sites.arranged import Visit
from captum_vit.sites.calls import ValueSite, Visits
from captum_vit.sites.site import Place, Site, hooked

HINT = (
    "a method that needs only tokens and gradients: CAT, LayerCDAM, a token CAM, PLUS over one of these; DecompX, "
    "FullGrad, LRP or ConservativeLRP, where their rules cover all that the model does."
)


@dataclass(eq=False)
class Group:
    """Joins that belong to one block, and the module call that is the block, if there is one."""

    joins: list[Join]
    call: Call | None
    features: int = -1  # the axis, in the stream's tensor; -1 where none is known

    @property
    def tensor(self) -> Tensor:
        """The stream as the first addition takes it."""
        return self.joins[0].whole.tensor

    @property
    def cells(self) -> tuple[int, ...]:
        """Its axes but those of the batch and the features."""
        return tuple(size for axis, size in enumerate(self.tensor.shape) if axis not in (0, self.features))


def staged(
    model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...], refusal: UnsupportedModelError
) -> Transformer | None:
    """The blocks of a network by its additions; None where it has none, or several streams beside each other.

    Costs two forward passes of these inputs, and holds the tensors of one meanwhile.

    Args:
        model: what runs.
        inputs: what is explained, batch first.
        args: further arguments of the forward.
        refusal: why its attention cannot be followed.
    """
    graph = Graph()
    try:
        graph.run(model, inputs, args)
        joins = joins_of(graph, len(inputs[0]))
        pasts = bare_pasts(graph, joins)
        chain = chain_of([join for join in joins if pasts[join.stream] & graph.sources], pasts)
        if not chain or random_call(graph, layers_behind(graph, chain[-1].joined)) or _others(joins, chain):
            return None
        groups = _grouped(graph, chain)
        blocks = [block for group in groups if (block := _block(graph, group, len(inputs[0]), refusal)) is not None]
        if 2 * len(blocks) <= len(groups):  # too few to stand for all
            return None
        additions = tuple(_addition(join) for join in joins)
        calls = tuple(graph.names) if graph.decides else ()
    finally:
        graph.release()
    places = _same_tokens([block.entrance for block in blocks], additions, partial(model, *inputs, *args))
    blocks = [replace(block, tokens_of=first) for block, first in zip(blocks, places, strict=True)]
    tower, why = named_tower(model) or model, UnsupportedModelError(refusal.wanted, refusal.got, HINT)
    return Transformer(
        tower, blocks, name_in(model, tower), family(tower), calls=calls, refusal=why, additions=additions
    )


def _same_tokens(places: list[Place], additions: tuple[Addition, ...], run: Callable[[], object]) -> list[int]:
    """For each place the first one that has the very same tokens in a pass in which no branch adds anything."""
    seen: dict[int, Tensor] = {}
    visits: list[tuple[Any, Visit]] = [(place, partial(_keep, seen, k)) for k, place in enumerate(places)]
    with ExitStack() as stack:
        stack.enter_context(hooked([(place, visit) for place, visit in visits if isinstance(place, Site)]))
        stack.enter_context(WithoutBranches(additions))
        values = Visits([(place, visit) for place, visit in visits if isinstance(place, ValueSite)])
        stack.enter_context(values if values.of else nullcontext())
        run()
    return [next(i for i in range(k + 1) if _equal(seen.get(i), seen.get(k))) for k in range(len(places))]


def _keep(seen: dict[int, Tensor], k: int, tokens: Tensor) -> None:
    seen[k] = tokens.clone()


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))


def features_at(model: nn.Module, site: Site, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> int | None:
    """The axis of features of the tensor at a module, by one pass; None of tokens (B, N, D), or where none is found."""
    graph = Graph()
    try:
        graph.run(model, inputs, args)
        value = Places(graph, [], ()).value_at(site)
        axis = None if value is None else features_of(value, value)
        return None if value is None or axis is None or _is_tokens(value.tensor, axis) else axis
    finally:
        graph.release()


def _addition(join: Join) -> Addition:
    assert join.op.number is not None
    return Addition(join.op.number, join.op.name, join.op.takes.index(join.given))


def _others(joins: list[Join], chain: list[Join]) -> bool:
    """Whether another stream runs beside: one at least half as long that meets this one nowhere."""
    apart = [
        join
        for join in joins
        if join not in chain
        and not any(join.joined.made_from(one.joined) or one.stream.made_from(join.joined) for one in chain)
    ]
    return 2 * len(apart) >= len(chain)


def _grouped(graph: Graph, chain: list[Join]) -> list[Group]:
    """The joins of one call that takes the stream before them and gives the last of them are one block."""
    groups: list[Group] = []
    for join in chain:
        call = _call_around(graph, join)
        before = groups[-1] if groups else None
        if before is not None and call is not None and call is before.call:
            before.joins.append(join)
        else:
            groups.append(Group([join], call))
    groups = [part for group in groups for part in _apart(group)]
    known: dict[torch.Size, int] = {}
    for join in chain:
        axis = features_of(join.whole, join.branch)
        if axis is not None:
            known.setdefault(join.whole.tensor.shape, axis)
    for group in groups:
        axis = features_of(group.joins[0].whole, group.joins[0].branch)
        group.features = known.get(group.tensor.shape, -1) if axis is None else axis
    return groups


def _call_around(graph: Graph, join: Join) -> Call | None:
    """The innermost call that takes the stream, or what it is made of, and gives what is made of the sum."""
    return next(
        (
            call
            for call in reversed(graph.calls)
            if call.holds(join.op)
            and call.takes
            and call.gives
            and join.given.made_from(call.takes[0])
            and call.gives[0].made_from(join.joined)
        ),
        None,
    )


def _apart(group: Group) -> list[Group]:
    """One block, if its call takes its stream as it is and gives it; else each join by itself."""
    call, first, last = group.call, group.joins[0], group.joins[-1]
    if call is not None and call.takes[0].has_numbers_of(first.stream) and call.gives[0].has_numbers_of(last.joined):
        return [group]
    return [Group([join], None) for join in group.joins]


def _block(graph: Graph, group: Group, batch: int, refusal: UnsupportedModelError) -> Block | None:
    """The places of a block; None where it is not known which axis holds features."""
    first, last = group.joins[0], group.joins[-1]
    if group.features < 0:
        return None
    entrance = _place(graph, first.stream, first.whole, group.features, group.call)
    joined = last.joined
    axis = axis_like(joined.tensor, group.tensor, group.features, numbers=False)
    out = None if axis is None else _place(graph, joined, joined, axis, group.call, leaves=True)
    if entrance is None or out is None:
        return None
    norm = norm_of_stream(graph, first.whole, group.features, first.branch)
    reads = None if norm is None else _place(graph, norm, first.whole, group.features, None, leaves=True)
    parts = ("mid", "before_mid", "before_norm", "first_norm", "last_norm", "mid_norm", "out_proj", "attn_scale")
    return Block(
        entrance=entrance,
        attn_in=reads or entrance,
        mid=None,
        out=out,
        between=refusal.got,
        module=None if group.call is None else uncompiled(group.call.module),
        missing=dict.fromkeys(parts, refusal.got),
        cells=group.cells,
    )


def _place(
    graph: Graph, value: Value, like: Value, axis: int, call: Call | None, leaves: bool = False
) -> Site | ValueSite | None:
    """Where a value enters or leaves a block, with the axis of its features there; ``like`` is a form of known axis."""
    for shape in dict.fromkeys(form.tensor.shape for form in (like, *value.root.same)):
        places = Places(graph, [], tuple(shape))
        gives = leaves and call is not None and call.gives[0].tensor.shape == shape
        if gives and call is not None:
            place: Site | ValueSite | None = places.output_of(call)
        else:
            place = places.at(value) if leaves else places.entered(value, call)
        there = None if place is None else places.value_at(place)
        if place is not None and there is not None:
            found = axis_like(there.tensor, like.tensor, axis, numbers=like.has_numbers_of(value))
            if found is not None:
                return replace(place, features=None if _is_tokens(there.tensor, found) else found)
    return None


def _is_tokens(x: Tensor, axis: int) -> bool:
    return x.dim() == 3 and axis == 2
