"""Which towers are described, and the one that lies in a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches

from torch import nn

from captum_vit.errors import OptionError, UnsupportedModelError
from captum_vit.models.modules import no_module
from captum_vit.models.spec import Spec, transformer_from
from captum_vit.models.transformer import Transformer
from captum_vit.options import shown

Describe = Spec | Callable[[nn.Module], Spec | None]
_REGISTRY: dict[str, Describe] = {}
_OURS: dict[str, Describe] = {}  # those of this package, which its tests hold to the models


def register_spec(*classes: str | type[nn.Module], spec: Describe | None = None) -> Callable[[Describe], Describe]:
    """Describe a class of towers, and thereby its subclasses that have no description of their own.

    Use it with a :class:`Spec`, or as a decorator over a function of the tower that returns one. A later
    description takes the place of an earlier one; a name with its package goes before one without.

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
    """The spec of this very module, or None if its class is unknown."""
    _, name = _described_as(module)
    if name is None:
        return None
    known = _REGISTRY[name]
    found = known if isinstance(known, Spec) else known(module)
    if not isinstance(found, Spec | None):
        wanted = f"A Spec from the description of {type(module).__name__}, or None if it does not fit this one."
        raise OptionError(wanted, shown(found), "a function that returns captum_vit.Spec(...).")
    return found


def is_ours(module: nn.Module) -> bool:
    """Whether its very class, as its library wrote it, is described by this package."""
    cls, name = _described_as(module)
    ours = name is not None and _REGISTRY[name] is _OURS.get(name)
    return ours and cls is type(module) and "forward" not in vars(module)


def _described_as(module: nn.Module) -> tuple[type, str] | tuple[None, None]:
    """The class of a module, or the next above it, that is described, and the name by which it is."""
    for cls in type(module).__mro__:
        for name in _names(cls):
            if name in _REGISTRY:
                return cls, name
    return None, None


def all_registered_are_ours() -> None:
    """What is registered so far comes with this package."""
    _OURS.update(_REGISTRY)


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


def spec_of(model: nn.Module) -> Transformer:
    """Find the transformer inside a model: the model itself, or the only described tower within it.

    Wrappers (data parallel, compiled, Lightning modules, our target modules) are looked through.
    A target module that reads one tower of several names it in its ``tower`` attribute.

    Raises:
        UnsupportedModelError: no tower, or more than one, was found.
    """
    found = known(model)
    if found is None:
        raise _none(model)
    return found


def known(model: nn.Module) -> Transformer | None:
    """As :func:`spec_of`; None where no module has a spec.

    Raises:
        UnsupportedModelError: more than one tower has.
    """
    found = all_known(model)
    if len(found) > 1:
        raise _several(model, [f"{one.name} ({type(one.tower).__name__})" for one in found])
    return found[0] if found else None


def all_known(model: nn.Module) -> list[Transformer]:
    """Every tower in a model whose class has a spec."""
    if not isinstance(model, nn.Module):
        raise no_module(model)
    found = {id(tower): (tower, spec) for tower, spec in _towers(model)}
    return [transformer_from(tower, spec, _name_of(tower, model)) for tower, spec in found.values()]


def _name_of(tower: nn.Module, model: nn.Module) -> str:
    return next((name for name, module in model.named_modules() if module is tower), "tower")


def _several(model: nn.Module, towers: list[str]) -> UnsupportedModelError:
    return UnsupportedModelError(
        "A model with one transformer, or a target module that names the tower to explain.",
        f"{type(model).__name__} with {len(towers)} transformers: {', '.join(towers)}",
        "captum_vit.TextSimilarity(model, ...) for an image-text model, or a module of yours whose attribute "
        "`tower` is the part to explain.",
    )


def _none(model: nn.Module) -> UnsupportedModelError:
    stacks = [
        f"{name}: {len(m)} x {type(m[0]).__name__}"
        for name, m in model.named_modules()
        if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1 and type(m[0]) is type(m[1])
    ]
    near = get_close_matches(type(model).__name__, {name.rpartition(".")[2] for name in _REGISTRY}, n=3)
    return UnsupportedModelError(
        "A transformer whose class has a spec; any other is described by a pass over inputs.",
        f"{type(model).__name__}, with these repeated parts: {'; '.join(stacks[:4]) or 'none'}",
        "captum_vit.doctor(model, inputs), which runs it; methods do so by themselves."
        + (f" Classes of like names that have a spec: {', '.join(near)}." if near else ""),
    )
