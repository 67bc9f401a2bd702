r"""Relevance passed back in place of gradients: layer-wise relevance propagation by the rules of Chefer et al.

Inside :class:`Relevance` a forward pass builds a graph whose "gradients" are relevances: each operation hands the
relevance R of its result to its inputs x, by how much each of them contributes to a sum z,

.. math:: R_x = x \odot \left(\frac{\partial z}{\partial x}\right)^\top \frac{R}{z}.

- Linear layers, convolutions and products with a constant matrix: z is the positive part of the sum,
  :math:`z = x^+ w^+ + x^- w^-` (alpha = 1, beta = 0). Biases get nothing.
- Products of two streams (queries with keys, attention with values, gates): z is the product, and each gets half.
- Sums of two streams (residuals): z is the sum; then both shares of a sample are scaled, see :class:`Added`.
- Means and sums over tokens, pooling included: z is the sum.
- Norms, softmax, and everything that acts on single entries (activations, multiples, shifts by a constant): the
  relevance passes as it is. A deviation that is written out counts as a constant.
- What only moves entries, or picks some of them (the maximum), moves their relevance.

So relevance is conserved, up to what arrives where z is zero. Anything else is refused once relevance arrives there.

The rules divide by sums of mixed sign, which come near zero: what float32 rounds away would be seen in the map. So
the pass is computed in float64, whatever the model's precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import CaptumVitError, ModelStateError, UnsupportedModelError
from captum_vit.sites.mode import Mode
from captum_vit.trace.modes.attention_weights import SOFTMAX
from captum_vit.trace.modes.entrywise import common_origin, copied, mark, operands, written_over
from captum_vit.trace.modes.explicit import explicit
from captum_vit.trace.modes.frozen import added_product, gated_linear
from captum_vit.trace.modes.functions import (
    COMPARISONS,
    CURVED,
    DEVIATIONS,
    IN_PLACE,
    MATMUL,
    NEGATED,
    PRODUCTS,
    QUOTIENTS,
    SUMS,
    WHERE,
    chooses,
    is_in_place,
    named,
)
from captum_vit.trace.modes.redistribution import (
    Added,
    Function,
    Passed,
    Redistributed,
    Undefined,
    positive,
    undefined,
)

LINEAR = named("linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
MEANS = named(
    "mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate"
)
PASSES = SOFTMAX | named("layer_norm rms_norm batch_norm group_norm instance_norm normalize")
SINGLE = CURVED | NEGATED | COMPARISONS
TWO = SUMS | PRODUCTS | QUOTIENTS
ADDED = named("add __add__ __radd__")
ADDED_PRODUCTS = named("addmm baddbmm")
ADDED_FACTORS = named("addcmul")
SUBTRACTED = named("sub __sub__ subtract")
MOVES = named(
    "__getitem__ cat chunk clone contiguous dropout expand expand_as flatten gather index_select masked_fill "
    "movedim narrow permute repeat repeat_interleave reshape select split squeeze stack swapaxes t tile "
    "alpha_dropout feature_alpha_dropout nan_to_num "
    "to transpose type_as unbind unflatten unsqueeze view view_as flip requires_grad_ double amax amin max min sort "
    "topk roll rot90 pad moveaxis swapdims concat concatenate hstack vstack unfold pixel_shuffle pixel_unshuffle "
    "channel_shuffle tensor_split reshape_as broadcast_to max_pool1d max_pool2d max_pool3d adaptive_max_pool1d "
    "adaptive_max_pool2d adaptive_max_pool3d"
)  # fmt: skip
AS_THEY_ARE = {F.embedding}  # a look-up need not make the whole table wider


class Relevance(Mode):
    """Inside this context the graph of a forward pass carries relevances back.

    Parameters and other tensors without a graph are constants. See the module for the rules.

    Args:
        batch: the number of samples; every tensor that depends on the tokens has that many rows, or a multiple.
    """

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if getattr(func, "__name__", "") == "__get__":  # shape, dtype, requires_grad: of the tensor itself
            found = func(*args, **kwargs)
            return found.detach() if isinstance(found, Tensor) and isinstance(args[0], nn.Parameter) else found
        if func is F.scaled_dot_product_attention:
            with self:
                return explicit(*args, **kwargs).context
        if torch.is_grad_enabled() and any(map(is_stream, _tensors((args, tuple(kwargs.values()))))):
            return self._propagated(func, args, kwargs)
        if func in AS_THEY_ARE or is_in_place(func):
            return func(*args, **kwargs)
        return (torch.Tensor.double if func is torch.Tensor.float else func)(*wide(args), **wide(kwargs))

    def _propagated(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call on tensors that depend on the tokens, under the rule for it."""
        if func in LINEAR:
            return _linear(func, args, kwargs)
        if func is torch.Tensor.__setitem__:
            return func(args[0], *wide(args[1:]))
        if (is_in_place(func) and func is not torch.Tensor.requires_grad_) or func in IN_PLACE or kwargs.get("inplace"):
            return self._propagated_in_place(func, args, kwargs)
        args, kwargs = wide(args), wide(kwargs)
        if func in DEVIATIONS:
            return func(*args, **kwargs).detach()
        if func is torch.Tensor.float:
            return args[0]
        if func in SINGLE or chooses(func, args):
            return _single(func, args, kwargs)
        if func in MOVES:
            return func(*args, **kwargs)
        if func in PASSES:
            return _passed(func, args, kwargs)
        if func in MATMUL:
            return _matrix_product(func, *args)
        if func is torch.einsum and len(factors := args[1] if isinstance(args[1], list | tuple) else args[1:]) == 2:
            return _matrix_product(lambda a, b: torch.einsum(args[0], a, b), *factors)
        if func in ADDED_PRODUCTS:
            with self:
                return _added_product(*args, **kwargs)
        if func in ADDED_FACTORS:
            with self:
                return added_product(*args, **kwargs)
        if func in MEANS:
            f = lambda x: func(x, *args[1:], **kwargs)  # noqa: E731
            return Redistributed.apply(f, f, 1.0, args[0])
        if func in TWO:
            return self._of_two(func, args, kwargs)
        if func is F.glu:
            with self:
                return gated_linear(*args, **kwargs)
        return _undefined(func, args, kwargs)

    def _propagated_in_place(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result written over the first tensor, whose relevance then is that of the result."""
        inplace = kwargs.pop("inplace", False)
        plain = func if inplace else IN_PLACE.get(func) or getattr(torch.Tensor, func.__name__.removesuffix("_"), None)
        if plain is None:
            raise undefined(func)
        others = operands((args[1:], tuple(kwargs.values())))
        return written_over(args[0], self._propagated(plain, (copied(args[0], alone=not others), *args[1:]), kwargs))

    def _of_two(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Sums, differences, products and quotients; a constant, or what is divided by, gets nothing."""
        streams = operands(args)
        if len(streams) < 2 or common_origin(streams) is not None:
            return _single(func, args, kwargs)
        if func in QUOTIENTS:
            return _passed(func, args, kwargs)
        a, b = args
        a, b = torch.broadcast_tensors(a, b)
        if func in PRODUCTS:
            return Redistributed.apply(torch.mul, torch.mul, 0.5, a, b)
        if kwargs or func not in ADDED | SUBTRACTED:
            return _undefined(func, args, kwargs)
        return Added.apply(a, b if func in ADDED else Passed.apply(b, lambda: -b), self.batch)


@contextmanager
def carried(model: nn.Module) -> Iterator[None]:
    """Around a pass that relevance is carried through, in float64: kernels that cannot take part are refused."""
    try:
        yield
    except (CaptumVitError, torch.OutOfMemoryError):
        raise
    except RuntimeError as error:
        raise UnsupportedModelError(
            "Layers that run in float64, in which relevance is carried through them.",
            f"{type(model).__name__}, refused with: {error}",
            "a method that follows gradients, such as LayerCDAM or DecompX.",
        ) from error


def refuse_half_precision(model: nn.Module) -> None:
    """Its rounding is of the size of the sums that are divided by."""
    narrow = {str(p.dtype) for p in model.parameters() if p.is_floating_point() and p.element_size() < 4}
    if narrow:
        raise ModelStateError(
            "A model in float32 or float64: relevance is divided by sums that come near zero, so that rounding the "
            "weights to half precision changes the map altogether.",
            ", ".join(sorted(narrow)),
            "the model as it was before it was rounded, or model.float() for that of the rounded weights.",
        )


def _linear(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The z+ rule; weights are made wider when they are needed, and not kept so."""
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    x, w, bias = wide(given.pop("input")), given.pop("weight"), given.pop("bias", None)
    if is_stream(w):
        raise undefined(func)
    without_bias = lambda x, w: func(x, w, None, *args[3:], **given)  # noqa: E731
    return Redistributed.apply(
        lambda x: func(x, wide(w), wide(bias), *args[3:], **given),
        lambda x: positive(without_bias, x, wide(w)),
        1.0,
        x,
    )


def _matrix_product(f: Function, a: Tensor, b: Tensor) -> Any:
    """Of two streams, half to each; with a constant matrix as a linear layer."""
    if is_stream(a) and is_stream(b):
        return Redistributed.apply(f, f, 0.5, a, b)
    if is_stream(a):
        return Redistributed.apply(lambda x: f(x, b), lambda x: positive(f, x, b), 1.0, a)
    return Redistributed.apply(lambda x: f(a, x), lambda x: positive(lambda x, w: f(w, x), x, a), 1.0, b)


def _added_product(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``torch.addmm`` and ``torch.baddbmm`` in calls that a mode can see."""
    product = torch.matmul(a, b) if alpha == 1 else torch.matmul(a, b) * alpha
    return product if beta == 0 else product + (x if beta == 1 else x * beta)


def _single(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of single entries of one stream, however it is written: that stream gets all of the relevance."""
    streams = operands((args, tuple(kwargs.values())))
    origin = common_origin(streams)
    by_constants = func in WHERE and not any(args[0 if func is torch.where else 1] is x for x in streams)
    if by_constants or (origin is None and (func in WHERE or chooses(func, args))):
        return func(*args, **kwargs)  # picks entries
    if origin is None:
        return _undefined(func, args, kwargs)
    with torch.no_grad():
        y = func(*args, **kwargs)
    bias = func in SUMS and any(isinstance(a, Tensor) and a.dim() > 0 for a in args if not any(a is x for x in streams))
    same = y.shape == origin.shape and not bias
    passed = y if y.dtype == torch.bool else Passed.apply((origin if same else streams[0]).expand_as(y), lambda: y)
    return mark(passed, origin if same else None, 0.0, True)


def _passed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A norm, a softmax, or a quotient: the first stream gets all of the relevance."""
    x = next(filter(is_stream, (*args, *kwargs.values())))
    with torch.no_grad():
        y = func(*args, **kwargs)
    return Passed.apply(x.expand_as(y), lambda: y)


def _undefined(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What has no rule may be computed, such as a deviation, as long as no relevance comes back to it."""
    result = func(*args, **kwargs)
    if isinstance(result, Tensor):
        return Undefined.apply(result, func) if result.requires_grad else result
    if any(map(is_stream, _tensors(result))):  # several results, such as values and indices
        raise undefined(func)
    return result


def wide(x: Any) -> Any:
    """Constants without a graph, and everything that is float32 in float64."""
    if isinstance(x, Tensor):
        x = x.detach() if isinstance(x, nn.Parameter) else x
        return x.double() if x.dtype == torch.float32 else x
    if isinstance(x, dict):
        return {name: wide(item) for name, item in x.items()}
    if type(x) in (tuple, list):
        return type(x)(map(wide, x))
    return torch.float64 if x is torch.float32 else x


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from _tensors(item)


def is_stream(x: Any) -> bool:
    """Whether it depends on the tokens."""
    return isinstance(x, Tensor) and x.requires_grad and not isinstance(x, nn.Parameter)
