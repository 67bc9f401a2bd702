"""The transformer inside a model that reads these inputs, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from captum._utils.common import _format_additional_forward_args
from torch import Tensor, nn

from captum_vit.description.measured import held_to_pass, measured
from captum_vit.description.staged import features_at, staged
from captum_vit.description.two_towers import TwoTowers, is_words_and_pictures, two_towers
from captum_vit.errors import UnsupportedModelError
from captum_vit.models.example import example
from captum_vit.models.modules import module_of, modules_of, named_tower
from captum_vit.models.per_sample import first_samples, is_of_each_sample
from captum_vit.models.registry import Describe, all_known, registered
from captum_vit.models.towers import refuse_both
from captum_vit.models.transformer import Transformer
from captum_vit.sites.nests import tensors_in
from captum_vit.sites.site import Place, Site, reached
from captum_vit.trace.layout.pictures import Pictures
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import checked_args, checked_inputs, undisturbed
from captum_vit.trace.run.watch import model_errors_as_ours

TWO = (
    "DecompX or ConservativeLRP, which explain words and pictures at once; for other methods the ids alone, with the "
    "pixels in a target module: captum_vit.Answer(model, prompt_length, inputs=processor(...))."
)
KINDS = 512  # of inputs, of which a model's transformer is remembered, texts of as many lengths among them


@dataclass(frozen=True)
class Remembered:
    """Transformers of one model, its modules at that time, and the tower that it named; nothing keeps it alive."""

    modules: list[ref[nn.Module]]
    specs: tuple[Describe, ...]  # all that were registered
    by_kind: dict[Hashable, tuple[Transformer, ref[nn.Module]]] = field(default_factory=dict)  # the tower is apart
    refusals: dict[Hashable, UnsupportedModelError] = field(default_factory=dict)
    features: dict[Hashable, int | None] = field(default_factory=dict)  # the axis of features at a module
    proofs: dict[Hashable, UnsupportedModelError | None] = field(default_factory=dict)  # why a rule is not complete
    towers: dict[Hashable, TwoTowers] = field(default_factory=dict)  # of ids and pixels
    pictures: dict[Hashable, Pictures] = field(default_factory=dict)  # where the tokens of a tower lie

    def still_holds(self, modules: list[nn.Module]) -> bool:
        """Whether the model has the same modules in the same places, and the same specs are registered."""
        same = self.specs == registered() and len(modules) == len(self.modules)
        return same and all(map(is_, (was() for was in self.modules), modules))

    def get(self, kind: Hashable) -> Transformer | None:
        """The transformer that reads inputs of this kind, if it is known."""
        transformer, tower = self.by_kind.get(kind, (None, None))
        there = None if tower is None else tower()
        return None if transformer is None or there is None else replace(transformer, tower=there)

    def add(self, kind: Hashable, transformer: Transformer) -> None:
        """Remember one more, and forget the oldest of too many."""
        self.by_kind[kind] = replace(transformer, tower=nn.Identity()), ref(transformer.tower)
        if len(self.by_kind) > KINDS:
            del self.by_kind[next(iter(self.by_kind))]


_REMEMBERED: WeakKeyDictionary[nn.Module, Remembered] = WeakKeyDictionary()


def spec_of(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...] | None = None, additional_forward_args: Any = None
) -> Transformer:
    """The transformer inside a model, as every method sees it: its tower, and the places in its blocks.

    Wrappers (data parallel, compiled, Lightning modules, our target modules) are looked through.
    A target module that reads one tower of several names it in its ``tower`` attribute.

    Costs one or two forward passes of one sample, the first time that a model is given inputs of this shape.

    Args:
        model: as it was loaded, or a target module around it.
        inputs: what is explained; None makes an image of noise of the model's own size, or a short row of token ids.
        additional_forward_args: further positional arguments of the model, as in Captum.

    Raises:
        UnsupportedModelError: no transformer, or more than one, was found; it says what was found.
        InputError: the model refuses the inputs, or does not show what an example of them would be.
    """
    model = module_of(model)
    refuse_both(model)
    with undisturbed(model):
        given = checked_inputs(example(model) if inputs is None else inputs, model)
        args = checked_args(_format_additional_forward_args(additional_forward_args) or ())
        return transformer_of(model, given, args)


def transformer_of(model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Transformer:
    """The transformer that reads these inputs: as a spec describes it, and else as it is found in a pass over them.

    A spec is held to a pass. What is found is remembered for inputs of the same shapes, in batches of any size where
    all its places are modules that run once. Call it inside :func:`captum_vit.trace.run.state.undisturbed`.

    Raises:
        UnsupportedModelError: no transformer, or more than one, was found, or its attention cannot be followed; it says
            what was found.
        InputError: the model refuses the inputs.
    """
    found = stream_of(model, inputs, args)
    found.refuse_attention()
    return found


def stream_of(model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Transformer:
    """The same; or, where no attention can be followed, the blocks of the network by what adds to its stream.

    Raises:
        UnsupportedModelError: no such blocks were found either.
        InputError: the model refuses the inputs.
    """
    return described(Pass(model, inputs, args)).transformer


def described(call: Pass) -> Pass:
    """The same pass, with the transformer of :func:`stream_of`."""
    given = (call.inputs, call.args)
    before, shapes = _remembered(call.model, call.modules), shapes_of(*given)
    found = before.get(shapes) or before.get((shapes, _batch(*given)))
    if found is None:
        found = _found(call.model, *given, before.refusals, shapes)
        before.add(shapes if found.fixed else (shapes, _batch(*given)), found)
    return replace(call, found=found)


def towers_of(model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> TwoTowers:
    """The two towers of a model that is given ids and pixels, found by one pass.

    What is found is remembered for inputs of the same shapes. Call it inside ``undisturbed``.

    Raises:
        UnsupportedModelError: words, or pictures, are not read by such a tower.
        InputError: the model refuses the inputs.
    """
    known, shapes = remembered(model).towers, (shapes_of(inputs, args), _batch(inputs, args))
    if shapes not in known:
        refuse_both(model)
        cuda = {x.device for x in inputs if x.is_cuda}
        with model_errors_as_ours(model, *inputs, *args), torch.random.fork_rng(cuda):
            known[shapes] = two_towers(model, inputs, args)
        if len(known) > KINDS:
            del known[next(iter(known))]
    return known[shapes]


def remembered(model: nn.Module) -> Remembered:
    """What is known of a model as it is now."""
    return _remembered(model, modules_of(model))


def _remembered(model: nn.Module, held: Sequence[nn.Module]) -> Remembered:
    modules = [*held, named_tower(model) or model]
    before = _REMEMBERED.get(model)
    if before is None or not before.still_holds(modules):
        before = _REMEMBERED[model] = Remembered(list(map(ref, modules)), registered())
    return before


def arranged_site(call: Pass, site: Site) -> Site:
    """A module's place, with the axis of its tensor that holds features, in a network whose blocks may have any shape.

    Found by one pass, and remembered for inputs of the same shapes.
    """
    if call.transformer.refusal is None:
        return site
    known, key = _remembered(call.model, call.modules).features, (where_of(site), shapes_of(call.inputs, call.args))
    if key not in known:
        first = call.of_first()
        with torch.random.fork_rng({x.device for x in call.inputs if x.is_cuda}):
            known[key] = features_at(call.model, site, first.inputs, first.args)
    return replace(site, features=known[key])


def _found(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
    refusals: dict[Hashable, UnsupportedModelError],
    shapes: Hashable,
) -> Transformer:
    """Described by hand, or by a pass; or refused as at the first time."""
    if shapes in refusals:
        raise copy(refusals[shapes])
    refuse_both(model)
    cuda = {x.device for x in inputs if x.is_cuda}  # random numbers of the caller stay as they are
    with model_errors_as_ours(model, *inputs, *args), torch.random.fork_rng(cuda):
        described = [one for one in all_known(model) if _runs(model, one, inputs, args)]
        if len(described) == 1:
            return held_to_pass(model, described[0], inputs, args)
        try:
            return measured(model, inputs, args)
        except UnsupportedModelError as error:
            pictured = is_words_and_pictures(inputs)
            found = None if pictured else staged(model, *first_samples(inputs, args), error)
            if found is not None:
                return found
            refusals[shapes] = UnsupportedModelError(error.wanted, error.got, TWO) if pictured else copy(error)
            raise copy(refusals[shapes]) from error


def _runs(model: nn.Module, described: Transformer, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> bool:
    """Whether a tower takes part in a pass over these inputs."""
    return reached(described.blocks[0].entrance, lambda: model(*inputs, *args)) is not None


def where_of(place: Place) -> Hashable:
    """What tells a place from others of the same model, and keeps no module alive."""
    return (id(place.module), place.side, place.nth) if isinstance(place, Site) else repr(place)


def shapes_of(inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Hashable:
    """Shapes and types of one sample, and other arguments."""
    batch = len(inputs[0])
    tensors = [
        (tuple(x.shape[1:] if is_of_each_sample(x, batch) else x.shape), x.dtype) for x in tensors_in((inputs, args))
    ]
    return (*tensors, *(repr(x) for x in args if not isinstance(x, Tensor)))


def _batch(inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Hashable:
    """What else the code that a model runs may depend on: the size of the batch, and whether a mask hides anything."""
    return (len(inputs[0]), *map(_hides, tensors_in((inputs, args))))


def _hides(x: Tensor) -> bool:
    return not x.is_floating_point() and x.dim() == 2 and not bool(x.all())
