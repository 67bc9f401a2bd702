"""Rules for the backward pass: the forward values stay, some factors count as constants.

- ``"grad"``: the plain gradient.
- ``"frozen"``: a network is linear in its tokens up to its biases. Attention probabilities, the deviation in
  every norm, the slope of every activation and the gate of every gated unit are held at the values they have.
  Gradient x input then *is* the decomposition that DecompX carries forward token by token, and relevance is
  lost only to biases.
- ``"libra"``: the balanced gradients of LibraGrad. The same, but of a gated unit both streams carry half of the
  gradient, as either could be called the gate. Relevance is lost only to biases here too.
- ``"conservative"``: the rules of Ali et al. Attention probabilities and the deviation in every norm are held, and
  everything else has its plain gradient.

An activation f is what it computes, not how it is written: as a module or a function, in place, or by hand as in
``x * torch.sigmoid(1.702 * x)``. It counts as :math:`f(0) + s\\,x` with its slope :math:`s = (f(x) - f(0)) / x` held,
and f(0), which softplus and sigmoid have, is a bias of the tokens where it arises. Under ``"frozen"`` and ``"libra"`` a
function that is neither linear nor of single entries is refused by name where a gradient arrives at it.

Under these two rules the deviations of layer, RMS, group and instance norms, what a stream is divided by, the grid of
``grid_sample`` and masks of an attention are held as well. A constant that is added, concatenated, filled in or written
beside a stream is a bias: tables of positions, class tokens that come late. A product of two streams of which none is a
gate (gMLP, FocalNet) is shared in halves under ``"libra"``, and refused under ``"frozen"``.
:func:`captum_vit.trace.replay.proof.proof` finds by one run whether a rule is complete for a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from captum_vit.options import one_of
from captum_vit.sites.mode import Mode
from captum_vit.sites.nests import swap
from captum_vit.trace.modes import functions
from captum_vit.trace.modes.attention_weights import SOFTMAX
from captum_vit.trace.modes.entrywise import (
    MARK,
    NO_TENSORS,
    adds,
    at_zero,
    common_origin,
    constant,
    copied,
    curved,
    detached,
    emptied,
    entrywise,
    is_gate,
    mark,
    moved,
    operands,
    scaled,
    shifted,
    summed,
    vanishes,
    with_constants,
    written_over,
)
from captum_vit.trace.modes.frozen import (
    SPELLED,
    WHOLE,
    FrozenActivation,
    Halved,
    Outside,
    frozen_batch_norm,
    uncovered,
)

Arguments = tuple[Any, ...]
Keywords = dict[str, Any]


class Frozen(Mode):
    """Inside this context every forward pass builds its graph under the frozen rule.

    Parameters enter as constants, so what has a graph is what depends on the tokens. A product of an activation and
    another stream (SwiGLU, GeGLU) counts the activation as the gate; of two activations the one that is not zero at
    zero, such as a sigmoid. An inverse square root is taken for the deviation of a norm that is written out, and what
    a stream is divided by is held too.

    Args:
        outside: where calls that no rule covers are noted as a gradient reaches them; else they are refused.
    """

    def __init__(self, outside: Outside | None = None) -> None:
        super().__init__()
        self.outside = outside

    def __torch_function__(self, func: Any, types: Any, args: Arguments = (), kwargs: Keywords | None = None) -> Any:
        kwargs = kwargs or {}
        if func in WHOLE:
            return WHOLE[func](*args, **kwargs)
        if func in SPELLED:
            with self:
                return SPELLED[func](*args, **kwargs)
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if getattr(func, "__name__", "") == "__get__":
            found = func(*args, **kwargs)  # a shape, for instance; or a matrix of weights, turned by `.T`
            return found.detach() if type(args[0]) is nn.Parameter and type(found) is Tensor else found
        streams, held = _read(args)
        named = kwargs
        if not NO_TENSORS.issuperset(map(type, kwargs.values())):
            streams += operands((*kwargs.values(),))
            named = constant(kwargs)
        if not streams:
            return func(*args, **kwargs) if functions.is_in_place(func) else func(*held, **named)
        return self._of(func, streams, held, named)

    def _of(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        """A call on tensors that depend on the tokens, by the kind of its function."""
        if func in functions.IN_PLACE or kwargs.get("inplace"):
            plain = {name: x for name, x in kwargs.items() if name != "inplace"}
            return self._written_over(functions.IN_PLACE.get(func, func), streams, args, plain)
        return getattr(self, _KINDS.get(func, "_other"))(func, streams, args, kwargs)

    def _moved(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        """Entries elsewhere; of two tensors the larger or smaller ones."""
        if func in functions.EXTREMES and functions.chooses(func, args):
            return self._activated(func, streams, args, kwargs)
        marked = [x for x in streams if MARK in x.__dict__]
        return moved(func, streams, args, kwargs) if marked else func(*args, **kwargs)

    def _joined(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        return with_constants(moved(func, streams, args, kwargs), func, streams, args, kwargs)

    def _moved_over(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        x, others = args[0], args[1:]
        if any(x is s for s in streams):
            return moved(func, streams, args, kwargs)
        before = x.detach().clone()  # a constant that is written over in part
        without, named = emptied((others, kwargs), streams)
        result = moved(func, streams, args, kwargs)
        func(before, *without, **named)
        adds(x, lambda: before)
        return result

    def _sampled(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        """Where a grid looks is a constant."""
        x = args[0] if args else kwargs["input"]
        held = [s for s in streams if s is not x] if self.holds else []
        return func(*detached(args, held), **detached(kwargs, held))

    def _summed(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        return summed(func, streams, args, kwargs)

    def _softmax(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        """Constants in an attention; the weights of experts are a gate, and the end of a model is refused."""
        y: Tensor = func(*args, **kwargs)
        return y.detach() if y.dim() > 2 else mark(uncovered(func, y, self.outside), None, 1.0, True)

    def _deviation(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        return func(*args, **kwargs).detach()

    def _other(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        if func is F.batch_norm and args[1] is not None and not kwargs.get("training"):
            return frozen_batch_norm(*args, **kwargs)
        return self._uncovered(func, func(*args, **kwargs))

    def _linear(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        """Linear in one stream; a product of two, but for the sum that some begin with."""
        factors = [x for x in streams if x is not args[0]] if func in functions.ADDED else streams
        if len(factors) > 1:
            return self._of_streams(func, factors, args, kwargs)
        y = func(*args, **kwargs)
        return with_constants(y, func, streams, args, kwargs) if func in functions.ADDED else y

    def _product(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        if len(streams) == 1:
            return scaled(func, streams[0], args, kwargs)
        if common_origin(streams) is None:
            return self._of_streams(func, streams, args, kwargs)
        return self._single_product(func, streams, args)

    def _quotient(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        """What a stream is divided by is held, unless both are functions of the same single entries."""
        if kwargs:
            return self._other(func, streams, args, kwargs)
        if len(streams) == 1:
            divides = func in functions.REFLECTED or streams[0] is not args[0]
            return self._activated(func, streams, args, {}) if divides else scaled(func, streams[0], args, {})
        if common_origin(streams) is not None:
            return self._single_product(func, streams, args)
        return scaled(func, args[0], (args[0], args[1].detach()), {})

    def _single_product(self, func: Any, streams: list[Tensor], args: Arguments) -> Any:
        """A product or quotient of functions of the same entries: of x g(x) the slope is g(x), also at zero."""
        a, b = args if func not in functions.PRODUCTS or curved(args[1]) else args[::-1]
        if curved(a) or not curved(b) or not vanishes(entrywise(a)[1]):
            return self._activated(func, streams, args, {})
        origin = entrywise(a)[0]
        y = func(*(detached(args, [b]) if self.holds else args))
        return mark(y, origin, at_zero(func, args, {}, origin), True)

    def _activated(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        """A function of single entries."""
        if len(streams) == 1 and shifted(streams[0]) and func not in functions.COMPARISONS:
            return self._behind_a_bias(func, streams[0], args, kwargs)
        origin = common_origin(streams)
        chosen = func in functions.WHERE and not operands(args[0] if func is torch.where else args[1])
        if chosen or (origin is None and (func in functions.WHERE or functions.chooses(func, args))):
            return with_constants(moved(func, streams, args, kwargs), func, streams, args, kwargs)
        if origin is None:
            return self._uncovered(func, func(*args, **kwargs))
        y = func(*args, **kwargs)
        if y.shape != origin.shape:  # of one entry for several
            origin = origin.expand_as(y)
        zero = at_zero(func, args, kwargs, origin)
        return mark(self._with_slope(func, origin, y, zero) if y.requires_grad else y, origin, zero, True)

    def _behind_a_bias(self, func: Any, x: Tensor, args: Arguments, kwargs: Keywords) -> Any:
        """A number that was added is a bias: the slope is that of the sum. In products the origin stays that of x."""
        start = x.view_as(x)
        y = self._activated(func, [start], swap(args, x, start), swap(kwargs, x, start))
        origin = common_origin([x])
        return y if origin is None else mark(y, origin, at_zero(func, args, kwargs, origin), True)

    def _with_slope(self, func: Any, origin: Tensor, y: Tensor, zero: float | Tensor) -> Tensor:
        if not (zero.isfinite().all() if isinstance(zero, Tensor) else isfinite(zero)):
            return self._uncovered(func, y)
        found: Tensor = FrozenActivation.apply(origin, y.detach(), zero)
        return found if vanishes(zero) else adds(found, lambda: zero)

    def _of_streams(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        """Of streams multiplied, all but one are held if they are gates."""
        gates = self._gates(func, streams)
        if len(gates) == len(streams) - 1:
            return func(*detached(args, gates), **detached(kwargs, gates))
        return self._shared(func, streams, args, kwargs)

    holds = True

    def _gates(self, func: Any, streams: list[Tensor]) -> list[Tensor]:
        """Activations; where all are, those that are not zero at zero."""
        activated = [x for x in streams if curved(x)]
        return activated if len(activated) < len(streams) else [x for x in activated if is_gate(x)]

    def _shared(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        return self._uncovered(func, func(*args, **kwargs))

    def _uncovered(self, func: Any, result: Any) -> Any:
        return uncovered(func, result, self.outside)

    def _written_over(self, plain: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        """The result of a call elsewhere, then written over its first argument."""
        x, before = args[0], copied(args[0], alone=len(streams) == 1)
        streams = [before if s is x else s for s in streams]
        return written_over(x, self._of(plain, streams, (before, *args[1:]), kwargs))


def _read(args: Arguments) -> tuple[list[Tensor], Arguments]:
    """The streams among arguments, as ``operands`` finds them; and all, with parameters as constants."""
    streams: list[Tensor] = []
    held = []
    for x in args:
        kind = type(x)
        if kind is Tensor:
            if x.requires_grad or MARK in x.__dict__:
                streams.append(x)
        elif kind is nn.Parameter:
            x = x.detach() if x.requires_grad else x
        elif kind not in NO_TENSORS and not (kind is tuple and NO_TENSORS.issuperset(map(type, x))):
            streams += operands(x)
            x = constant(x)
        held.append(x)
    return streams, tuple(held)


_KINDS = {
    func: kind
    for kind, known in {  # of a function that is of several kinds the last one counts
        "_linear": functions.LINEAR | functions.MATMUL | functions.ADDED | {torch.einsum},
        "_deviation": functions.DEVIATIONS,
        "_softmax": SOFTMAX,
        "_activated": functions.CURVED | functions.COMPARISONS,
        "_quotient": functions.QUOTIENTS,
        "_product": functions.PRODUCTS,
        "_summed": functions.SUMS | functions.NEGATED,
        "_moved": functions.MOVES,
        "_joined": functions.JOINED,
        "_sampled": functions.SAMPLED,
        "_moved_over": set(filter(functions.is_in_place, functions.MOVES)),
    }.items()
    for func in known
}


class Libra(Frozen):
    """Inside this context every forward pass builds its graph under LibraGrad's balanced gradients.

    As :class:`Frozen`, but a product of two streams hands half of the gradient to each: the product counts both
    streams once, so without halving their shares would sum to twice its value. A gate that is not zero at zero, such
    as a sigmoid, is held, and so are the weights of an attention.
    """

    def _gates(self, func: Any, streams: list[Tensor]) -> list[Tensor]:
        return [x for x in streams if is_gate(x)] if func in functions.PRODUCTS else super()._gates(func, streams)

    def _shared(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        """Both streams carry half of the gradient."""
        y = func(*args, **kwargs)
        return Halved.apply(y) if len(streams) == 2 else self._uncovered(func, y)


class Conservative(Frozen):
    """Inside this context attention and norms are frozen; all else has its plain gradient."""

    holds = False

    def _with_slope(self, func: Any, origin: Tensor, y: Tensor, zero: float | Tensor) -> Tensor:
        return y

    def _of_streams(self, func: Any, streams: list[Tensor], args: Arguments, kwargs: Keywords) -> Any:
        return func(*args, **kwargs)

    def _uncovered(self, func: Any, result: Any) -> Any:
        return result


_MODES: dict[str, list[type[Frozen]]] = {
    "grad": [], "frozen": [Frozen], "libra": [Libra], "conservative": [Conservative],
}  # fmt: skip
RULES = tuple(_MODES)


def checked_rule(rule: str) -> str:
    """The rule, if there is one of that name."""
    return one_of("rule", rule, RULES)


def noting_mode(rule: str, outside: Outside) -> TorchFunctionMode:
    """The mode of a rule, in which calls that it does not cover are noted as a gradient reaches them."""
    (mode,) = _MODES[checked_rule(rule)]
    return mode(outside)


def rule_modes(rule: str) -> list[TorchFunctionMode]:
    """The modes inside which a forward pass builds its graph under a rule; none for the plain gradient."""
    return [mode() for mode in _MODES[checked_rule(rule)]]


@contextmanager
def under(rule: str) -> Iterator[None]:
    """Inside, forward passes build their graph under a rule."""
    with ExitStack() as stack:
        for mode in rule_modes(rule):
            stack.enter_context(mode)
        yield
