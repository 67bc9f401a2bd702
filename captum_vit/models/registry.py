"""Towers that are described by hand, and those that lie in a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from captum_vit.errors import OptionError
from captum_vit.models.modules import no_module
from captum_vit.models.spec import Spec, transformer_from
from captum_vit.models.transformer import Transformer
from captum_vit.options import shown

Describe = Spec | Callable[[nn.Module], Spec | None]
_REGISTRY: dict[str, Describe] = {}


def register_spec(*classes: str | type[nn.Module], spec: Describe | None = None) -> Callable[[Describe], Describe]:
    """Describe a class of towers, and thereby its subclasses that have no description of their own.

    Use it with a :class:`Spec`, or as a decorator over a function of the tower that returns one. A later
    description takes the place of an earlier one; a name with its package goes before one without.
    A description is held to a pass over the first inputs of each shape, and refused where that shows something else.

    Args:
        classes: the class, or its name, bare (``"MyViT"``) or after its package (``"timm.Eva"``).
        spec: the description; leave it out to decorate. A function that returns None leaves a tower to a pass.

    Example:
        >>> register_spec("MyViT", spec=Spec(blocks="stages", attn="mha", out_proj="mha.proj", mid="ln2"))
    """
    if not classes or not all((isinstance(c, str) and c) or isinstance(c, type) for c in classes):
        raise OptionError("Classes of towers, or their names.", shown(classes), 'register_spec("MyViT", spec=Spec()).')
    names = [c if isinstance(c, str) else _names(c)[0] for c in classes]

    def describe(spec: Describe) -> Describe:
        if not isinstance(spec, Spec) and (not callable(spec) or isinstance(spec, type)):
            raise OptionError("A Spec, or a function of the tower that gives one.", shown(spec), "spec=Spec().")
        _REGISTRY.update(dict.fromkeys(names, spec))
        return spec

    if spec is not None:
        describe(spec)
    return describe


def registered() -> tuple[Describe, ...]:
    """All descriptions, to see whether others were registered in the meantime."""
    return tuple(_REGISTRY.values())


def _names(cls: type) -> tuple[str, str]:
    """A class is known by package and name, or only by name."""
    return f"{cls.__module__.partition('.')[0]}.{cls.__name__}", cls.__name__


def described(module: nn.Module) -> Spec | None:
    """The spec of this very module, or None if neither its class nor one above it has any."""
    names = (name for cls in type(module).__mro__ for name in _names(cls))
    known = next((_REGISTRY[name] for name in names if name in _REGISTRY), None)
    found = known if isinstance(known, Spec) or known is None else known(module)
    if not isinstance(found, Spec | None):
        wanted = f"A Spec from the description of {type(module).__name__}, or None if it does not fit this one."
        raise OptionError(wanted, shown(found), "a function that returns captum_vit.Spec(...).")
    return found


def _towers(model: nn.Module) -> Iterator[tuple[nn.Module, Spec]]:
    """Described modules that lie in no other described module; ``tower`` is the place to look, if it is there."""
    spec, named = described(model), getattr(model, "tower", None)
    if spec is not None:
        yield model, spec
    elif isinstance(named, nn.Module):
        yield from _towers(named)
    else:
        for child in model.children():
            yield from _towers(child)


def all_known(model: nn.Module) -> list[Transformer]:
    """Every tower in a model whose class has a spec."""
    if not isinstance(model, nn.Module):
        raise no_module(model)
    if not _REGISTRY:
        return []
    found = {id(tower): (tower, spec) for tower, spec in _towers(model)}
    return [transformer_from(tower, spec, _name_of(tower, model)) for tower, spec in found.values()]


def _name_of(tower: nn.Module, model: nn.Module) -> str:
    return next((name for name, module in model.named_modules() if module is tower), "tower")
