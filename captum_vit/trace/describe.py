"""The transformer inside a model that reads these inputs, and what is remembered of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch import Tensor, nn

from captum_vit.models.modules import modules_of
from captum_vit.models.registry import Describe, known, registered, spec_of
from captum_vit.models.transformer import Transformer


@dataclass(frozen=True)
class Remembered:
    """A transformer, and all modules of its model at that time; nothing here keeps the model alive."""

    transformer: Transformer  # without its tower
    tower: ref[nn.Module]
    modules: list[ref[nn.Module]]
    specs: tuple[Describe, ...]  # all that were registered

    def still_holds(self, modules: list[nn.Module]) -> bool:
        """Whether the model has the same modules in the same places, and the same specs are registered."""
        same = len(modules) == len(self.modules) and self.specs == registered()
        return same and all(was() is module for was, module in zip(self.modules, modules, strict=True))


_REMEMBERED: WeakKeyDictionary[nn.Module, Remembered] = WeakKeyDictionary()


def transformer_of(model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Transformer:
    """The transformer that reads these inputs. Call it inside :func:`captum_vit.trace.state.undisturbed`.

    Raises:
        UnsupportedModelError: no transformer, or more than one, was found; it says what was found.
    """
    modules = modules_of(model)
    before = _REMEMBERED.get(model)
    if before is not None and before.still_holds(modules):
        tower = before.tower()
        assert tower is not None  # one of these modules
        return replace(before.transformer, tower=tower)
    found = known(model) or spec_of(model)
    without = replace(found, tower=nn.Identity())
    _REMEMBERED[model] = Remembered(without, ref(found.tower), list(map(ref, modules)), registered())
    return found
