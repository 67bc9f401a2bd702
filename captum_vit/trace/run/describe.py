"""The transformer inside a model that reads these inputs, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch import Tensor, nn

from captum_vit.description.measured import measured, refuse_other
from captum_vit.errors import UnsupportedModelError
from captum_vit.models.modules import modules_of
from captum_vit.models.registry import Describe, all_known, is_ours, registered
from captum_vit.models.transformer import Transformer
from captum_vit.sites.nests import tensors_in
from captum_vit.sites.site import reached
from captum_vit.trace.run.watch import model_errors_as_ours

KINDS = 16  # of inputs, of which a model's transformer is remembered


@dataclass(frozen=True)
class Remembered:
    """Transformers of one model, and all its modules at that time; nothing here keeps the model alive."""

    modules: list[ref[nn.Module]]
    specs: tuple[Describe, ...]  # all that were registered
    by_kind: dict[Hashable, tuple[Transformer, ref[nn.Module]]] = field(default_factory=dict)  # the tower is apart
    refusals: dict[Hashable, UnsupportedModelError] = field(default_factory=dict)

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


def transformer_of(model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Transformer:
    """The transformer that reads these inputs: as a spec describes it, and else as it is found in a pass over them.

    A spec that does not come with this package is held to a pass. What is found is remembered for inputs of the same
    shapes. Call it inside :func:`captum_vit.trace.run.state.undisturbed`.

    Raises:
        UnsupportedModelError: no transformer, or more than one, was found; it says what was found.
        InputError: the model refuses the inputs.
    """
    modules = modules_of(model)
    before = _REMEMBERED.get(model)
    if before is None or not before.still_holds(modules):
        before = _REMEMBERED[model] = Remembered(list(map(ref, modules)), registered())
    found = before.get("any")
    if found is not None:
        return found
    known = all_known(model)
    sure = len(known) == 1 and _is_all(model, known[0].tower)  # else other inputs may run another tower
    kind: Hashable = "any" if sure else _kind(inputs, args)
    found = before.get(kind)
    if found is not None:
        return found
    with model_errors_as_ours(model, *inputs, *args):
        described = known if sure else [one for one in known if _runs(model, one, inputs, args)]
        if len(described) == 1:
            found = described[0]
            if not is_ours(found.tower):
                refuse_other(model, found, inputs, args)
        else:
            found = _measured(model, inputs, args, before.refusals)
    before.add(kind, found)
    return found


def _measured(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
    refusals: dict[Hashable, UnsupportedModelError],
) -> Transformer:
    """Found by a pass, or refused as at the first time."""
    shapes = _shapes(inputs, args)
    if shapes in refusals:
        raise UnsupportedModelError(refusals[shapes].wanted, refusals[shapes].got, refusals[shapes].hint)
    try:
        return measured(model, inputs, args)
    except UnsupportedModelError as error:
        refusals[shapes] = UnsupportedModelError(error.wanted, error.got, error.hint)
        raise


def _is_all(model: nn.Module, tower: nn.Module) -> bool:
    """Whether a model has no other stack of modules than those in a tower."""
    others = modules_of(model, without=[tower])
    return tower is model or not any(isinstance(m, nn.ModuleList | nn.Sequential) for m in others)


def _runs(model: nn.Module, described: Transformer, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> bool:
    """Whether a tower takes part in a pass over these inputs."""
    return reached(described.blocks[0].entrance, lambda: model(*inputs, *args)) is not None


def _kind(inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Hashable:
    """What the code that a model runs may depend on: shapes, types, whether a mask hides anything, other arguments."""
    tensors = [(tuple(x.shape), x.dtype, _hides(x)) for x in tensors_in((inputs, args))]
    return (*tensors, *(repr(x) for x in args if not isinstance(x, Tensor)))


def _shapes(inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Hashable:
    """Of one sample."""
    return tuple((tuple(x.shape[1:]), x.dtype) for x in tensors_in((inputs, args)))


def _hides(x: Tensor) -> bool:
    return not x.is_floating_point() and x.dim() == 2 and not bool(x.all())
