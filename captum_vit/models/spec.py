"""What this package must be told about a transformer; everything else is found by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from captum_vit.errors import OptionError, UnsupportedModelError
from captum_vit.options import shown

Path = str | Callable[[Any], Any]
"""A dotted attribute path, or a function of the object it starts from."""


@dataclass(frozen=True)
class Spec:
    """Names of the parts of one kind of transformer.

    A *tower* is the module that embeds an input and runs it through a stack of blocks.
    Prefix tokens, grid, pooling and the rows that the head reads are found by running the model.

    Args:
        blocks: from the tower to its sequence of blocks.
        attn: from a block to the attention module whose first input feeds queries, keys and values.
        out_proj: from a block to the layer that maps the merged heads back to the model's width; None where
            something else follows it (methods that read per-head vectors then refuse the model).
        mid: from a block to the module whose input is the stream between attention and feed-forward.
        attn_scale: from a block to the LayerScale vector of the attention branch, if it has one.
        first_norm: post-norm blocks only: from a block to the norm behind its attention. Its input is the stream
            plus the attention branch. Methods that follow vectors through it need it.
        last_norm: post-norm blocks only: from a block to the norm that ends it. Its input is the stream
            plus the feed-forward branch. None means pre-norm.
        attn_extra: names of attributes of the attention module that, where present, stand between the
            merged heads and ``out_proj`` (methods that read per-head vectors refuse such a model).
        pool: row weights, a function of ``(n_tokens, prefix)`` giving (N,), for heads that mix several
            poolings; rows that turn out not to be read get none. None means found by running the model.
        entry: from the tower to the module whose first input are the tokens that enter the first block, where
            others read them beside it (a convolution, as in DeBERTa). None means the block alone.
        returns: what a block returns, from the tokens that leave it; None means these tokens alone.
        family: a name for people.
    """

    blocks: Path = "blocks"
    attn: Path = "attn"
    out_proj: Path | None = "attn.proj"
    mid: Path = "norm2"
    attn_scale: Path | None = None
    first_norm: Path | None = None
    last_norm: Path | None = None
    attn_extra: tuple[str, ...] = ()
    pool: Callable[[int, int], Tensor] | None = None
    entry: Path | None = None
    returns: Callable[[Tensor], Any] | None = None
    family: str = "custom"


@dataclass(frozen=True)
class Transformer:
    """One tower of a model, described by its spec."""

    tower: nn.Module
    spec: Spec
    name: str  # dotted name of the tower inside the model

    @cached_property
    def blocks(self) -> list[nn.Module]:
        """In their order; of a compiled block the module inside, since names of classes and hooks are its."""
        return [uncompiled(block) for block in follow(self.tower, self.spec.blocks)]

    @property
    def post_norm(self) -> bool:
        return self.spec.last_norm is not None

    def entrance(self, layer: int) -> nn.Module:
        """The module whose first input are the tokens that enter a block."""
        entry = self.spec.entry if layer == 0 else None
        return self.blocks[layer] if entry is None else follow(self.tower, entry)

    def part(self, block: nn.Module, path: Path) -> Any:
        """A part of a block; refused by name if it is not there."""
        try:
            return follow(block, path)
        except AttributeError as error:
            raise UnsupportedModelError(
                f"A block with {path!r}, as the spec of {self.spec.family} says.",
                f"{type(block).__name__} ({error})",
                "captum_vit.register_spec with the attribute names of that block.",
            ) from error

    def find(self, block: nn.Module, path: Path) -> Any:
        """A part of a block, or None if it is not there."""
        try:
            return follow(block, path)
        except AttributeError:
            return None


def alone(model: nn.Module) -> nn.Module:
    """The model inside what copies it to other devices, or counts the gradients that pass it in training."""
    return model.module if isinstance(model, nn.DataParallel | DistributedDataParallel) else model


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` wrapped, or the module itself."""
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, nn.Module) else module


def modules_of(root: nn.Module, without: Iterable[nn.Module] = ()) -> list[nn.Module]:
    """Every module of a tree once, in no order; some are left out with all they hold.

    ``Module.modules`` makes a name for each, which takes several times as long; with small batches that shows.
    """
    seen, ahead, found = set(without), [root], []
    while ahead:
        module = ahead.pop()
        if module not in seen:
            seen.add(module)
            found.append(module)
            ahead += [m for m in module._modules.values() if m is not None]
    return found


def follow(start: Any, path: Path) -> Any:
    """Walk a dotted path, or call a function, from an object."""
    return path(start) if callable(path) else attrgetter(path)(start) if path else start


Describe = Spec | Callable[[nn.Module], Spec]
_REGISTRY: dict[str, Describe] = {}


def register_spec(*classes: str | type[nn.Module], spec: Describe | None = None) -> Callable[[Describe], Describe]:
    """Describe a class of towers, and thereby its subclasses that have no description of their own.

    Use it with a :class:`Spec`, or as a decorator over a function of the tower that returns one. A later
    description takes the place of an earlier one; a name with its package goes before the name alone.

    Args:
        classes: the class, or its name, alone (``"MyViT"``) or after its package (``"timm.Eva"``).
        spec: the description; leave it out to decorate.

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


def _names(cls: type) -> tuple[str, str]:
    """A class is known by package and name, or by name alone."""
    return f"{cls.__module__.partition('.')[0]}.{cls.__name__}", cls.__name__


def described(module: nn.Module) -> Spec | None:
    """The spec of this very module, or None if its class is unknown."""
    for cls in type(module).__mro__:
        for name in _names(cls):
            if name in _REGISTRY:
                known = _REGISTRY[name]
                found = known if isinstance(known, Spec) else known(module)
                if not isinstance(found, Spec):
                    wanted = f"A Spec from the description of {type(module).__name__}."
                    raise OptionError(wanted, shown(found), "a function that returns captum_vit.Spec(...).")
                return found
    return None


def _towers(model: nn.Module) -> Iterator[tuple[nn.Module, Spec]]:
    """Described modules that lie in no other described module; ``tower`` says where to look, if it is there."""
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
    if not isinstance(model, nn.Module):
        raise _no_module(model)
    found = {id(tower): (tower, spec) for tower, spec in _towers(model)}
    if len(found) == 1:
        ((tower, spec),) = found.values()
        return Transformer(tower, spec, _name_of(tower, model))
    if found:
        raise _several(model, [f"{_name_of(tower, model)} ({type(tower).__name__})" for tower, _ in found.values()])
    raise _none(model)


def _name_of(tower: nn.Module, model: nn.Module) -> str:
    return next((name for name, module in model.named_modules() if module is tower), "tower")


def module_of(forward_func: Any) -> nn.Module:
    """The module that a forward function is, or whose ``forward`` it is; another method does something else."""
    owner = getattr(forward_func, "__self__", None)
    if isinstance(owner, nn.Module) and getattr(forward_func, "__name__", "") in ("forward", "_wrapped_call_impl"):
        return owner
    if isinstance(forward_func, nn.Module):
        return forward_func
    raise _no_module(forward_func)


def _no_module(given: Any) -> UnsupportedModelError:
    return UnsupportedModelError(
        "The model itself (an `nn.Module`), since blocks and attention are read inside it.",
        shown(given),
        "the module, or a small `nn.Module` that holds the model and does what your function does.",
    )


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
    return UnsupportedModelError(
        f"A transformer of one of these classes: {', '.join(sorted(_REGISTRY))}.",
        f"{type(model).__name__}, with these repeated parts: {'; '.join(stacks[:4]) or 'none'}",
        "captum_vit.register_spec (five lines, see captum_vit/models/README.md) if its blocks keep one token per "
        "patch all the way; windowed, hierarchical, talking-heads and gated-position attention is not supported.",
    )
