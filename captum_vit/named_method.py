"""A method by its name, with options: ``"PLUS(SmoothGrad(stdevs=0.15), layers=[3, 4])"``.

The one reader of such texts: those of `captum_vit.explain`, of the command line, and of a benchmark's TOML file.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from captum.attr import Attribution
from torch import nn

from captum_vit.attr import METHODS, PLUS, InputGradient, SkipPLUS
from captum_vit.errors import CaptumVitError, LayerError, OptionError
from captum_vit.models.smallest import smallest
from captum_vit.options import known, shown

SUMS: dict[str, type[PLUS]] = {"PLUS": PLUS, "SkipPLUS": SkipPLUS}
BOUND = ("self", "forward_func", "model", "method")  # of a constructor: what a name stands for
GIVEN = ("self", "inputs", "target", "additional_forward_args")  # of `attribute`: what is explained
EXAMPLE = "SmoothGrad(stdevs=0.15), or PLUS(InputXGradient, layers=[0, 1])."


@dataclass(frozen=True)
class NamedMethod:
    """A method without its model yet, and what each call of its ``attribute`` is given."""

    make: Callable[[nn.Module], Attribution]
    options: dict[str, Any]


def method_named(text: str, options: Mapping[str, Any] | None = None) -> NamedMethod:
    """The method that a text names: ``GenAtt``, ``LayerSmoothCDAM(stdev=0.2)``, ``PLUS(SmoothGrad(nt_samples=5))``.

    A text is a name of ``captum_vit.METHODS``, or PLUS(...) or SkipPLUS(...) of one, with options as in Python:
    numbers, texts in quotes, True, False, None, and lists of these. They are those of the constructor and of
    ``attribute``, by name. Nothing of the text is executed. A method with options explains a picture of 4 x 4 pixels
    by a model of two blocks first, so that it refuses a wrong value before a model is loaded; which layers there are
    is left to the model.

    Args:
        text: the name.
        options: further ones, as if they stood in the text. Tensors and other objects are not tried.

    Raises:
        OptionError: a name that is not known, an option that the method does not take (the error lists those that it
            takes), or a value that it refuses.
    """
    call = _read(text)
    given = dict(options or {})
    if twice := [name for name in given if name in call.options]:
        raise OptionError("Each option once.", f"{twice[0]!r} in {text!r} and beside it", f"one {twice[0]} only.")
    call = replace(call, options=call.options | given)
    found = _method(call)
    if (call.options or text not in METHODS) and all(map(_plain, given.values())):
        _try(found, call)
    return found


def options_of(name: str) -> list[str]:
    """The options of a method of ``captum_vit.METHODS``: those of its constructor, then those of ``attribute``."""
    make = _known(name)
    return [*_of_constructor(make), *_of_attribute(make)]


@dataclass(frozen=True)
class _Call:
    """What stands in a text: a name with options, and the method in its brackets."""

    name: str
    options: dict[str, Any]
    inner: _Call | None = None


def _read(text: Any) -> _Call:
    if isinstance(text, str) and text in METHODS:
        return _Call(text, {})
    try:
        node = ast.parse(str(text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _unknown(text) from None
    return _call(node)


def _call(node: ast.expr) -> _Call:
    if isinstance(node, ast.Name):
        return _Call(node.id, {})
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or len(node.args) > 1:
        raise OptionError("A method by its name, with options in brackets.", shown(ast.unparse(node)), EXAMPLE)
    options: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in options:
            raise OptionError("Options as name=value, each once.", shown(ast.unparse(node)), EXAMPLE)
        options[keyword.arg] = _value(keyword.arg, keyword.value)
    return _Call(node.func.id, options, _call(node.args[0]) if node.args else None)


def _value(option: str, node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        text = ast.unparse(node)
        wanted = f"`{option}`: a number, a text in quotes, True, False, None, or a list of these."
        hint = f"{option}={text.capitalize() if text in ('true', 'false', 'none') else repr(text)}."
        raise OptionError(wanted, shown(text), hint) from None


def _method(call: _Call) -> NamedMethod:
    if call.inner is not None:
        return _sum(call, call.inner)
    make = _known(call.name)
    ours, calls = _of_constructor(make), _of_attribute(make)
    known(call.name, call.options, [*ours, *calls])
    made = {name: value for name, value in call.options.items() if name in ours}
    rest = {name: value for name, value in call.options.items() if name not in ours}
    return NamedMethod(partial(make, **made) if made else make, rest)


def _sum(call: _Call, of: _Call) -> NamedMethod:
    """PLUS or SkipPLUS of a method."""
    if call.name not in SUMS:
        raise OptionError("PLUS(...) or SkipPLUS(...) around a method.", f"{call.name}({of.name})", EXAMPLE)
    around, inner = SUMS[call.name], _method(of)
    if inner.options:
        wanted = f"Options of the constructor: {call.name} adds maps of layers, without a call of `attribute`."
        raise OptionError(wanted, ", ".join(inner.options), f"{call.name}({of.name}) without.")
    known(call.name, call.options, list(_parameters(around)))
    return NamedMethod(lambda model: around(inner.make(model), **call.options), {})


def _known(name: str) -> Callable[..., Attribution]:
    if name not in METHODS:
        raise _unknown(name)
    return METHODS[name]


def _unknown(name: Any) -> OptionError:
    folded = {one.casefold(): one for one in METHODS}
    near = [folded[one] for one in get_close_matches(str(name).casefold(), folded, n=4, cutoff=0.5)]
    return OptionError("A name in captum_vit.METHODS.", shown(name), ", ".join(near or METHODS))


def _of_constructor(make: Callable[..., Attribution]) -> list[str]:
    """What a class takes beside the model, or a function; of a function that hands all on, what its product takes."""
    if inspect.isclass(make) or not _hands_on(make):
        return list(_parameters(make))
    made = make(smallest()[0])
    return [*_parameters(type(made)), *(made.taken if isinstance(made, InputGradient) else ())]


def _parameters(make: Callable[..., Attribution]) -> Iterator[str]:
    """By name, those of ancestors included where a class hands keywords on."""
    kinds: list[Any] = [k for k in make.__mro__ if "__init__" in vars(k)] if isinstance(make, type) else [make]
    seen: set[str] = set()
    for kind in kinds:
        for name, parameter in inspect.signature(kind).parameters.items():
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name not in BOUND:
                if name not in seen:
                    yield name
                seen.add(name)
        if not _hands_on(kind) or kind is InputGradient:
            return


def _hands_on(make: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(make).parameters.values())


def _of_attribute(make: Callable[..., Attribution]) -> list[str]:
    """Of a class; a function that composes several things gives its options to their constructors."""
    kind: Any = make
    names = inspect.signature(kind.attribute).parameters if inspect.isclass(make) else ()
    return [name for name in names if name not in GIVEN]


def _plain(value: Any) -> bool:
    """Whether a text could hold the value."""
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str | dict)


def _try(found: NamedMethod, call: _Call) -> None:
    """Explain a small picture by a small model, which shows what the method refuses."""
    model, image = smallest()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            found.make(model).attribute(image, target=0, **found.options)
        except LayerError:
            return  # which layers there are, the model says that is explained
        except CaptumVitError:
            raise
        except Exception as error:  # of code that is not ours, such as Captum's
            got = f"{', '.join(f'{name}={value!r}' for name, value in call.options.items())} ({error})"
            hint = f"{call.name} without them, or values that its documentation names."
            raise OptionError(f"Options that {call.name} works with.", got, hint) from error
