"""What the functions of torch do to a stream of tokens: their kinds, found by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ROOMS: tuple[Any, ...] = (torch.Tensor, torch, F, torch.special)


def named(names: str) -> set[Any]:
    """The functions and methods of torch with these names."""
    return {getattr(room, name) for name in names.split() for room in ROOMS if hasattr(room, name)}


# Of single entries: those that are zero at zero whatever their options, and all others.
_ODD = (
    "gelu silu relu relu6 tanh elu selu celu mish hardswish leaky_relu prelu rrelu softshrink hardshrink tanhshrink "
    "softsign abs absolute sign sgn square sin tan sinh asin arcsin asinh arcsinh atan arctan erf expm1 log1p"
)
_OTHERS = (
    "sigmoid expit hardsigmoid logsigmoid softplus hardtanh threshold clamp clip clamp_min clamp_max exp exp2 log log2 "
    "log10 sqrt pow float_power reciprocal cos cosh acos arccos erfc where maximum minimum fmax fmin"
)
VANISHING = named(_ODD)
CURVED = VANISHING | named(_OTHERS) | named("__pow__ __rpow__ __abs__")
WHERE = named("where")
EXTREMES = named("max min")
COMPARISONS = named("gt ge lt le eq ne greater greater_equal less less_equal __gt__ __ge__ __lt__ __le__ __eq__ __ne__")
CHOICES = named("maximum minimum fmax fmin")
SUMS = named("add sub subtract rsub __add__ __radd__ __sub__ __rsub__")
PRODUCTS = named("mul multiply __mul__ __rmul__")
QUOTIENTS = named("div divide true_divide __truediv__ __rdiv__ __rtruediv__")
REFLECTED = named("__rdiv__ __rtruediv__")  # the second argument is divided by the first
NEGATED = named("neg negative __neg__")
DEVIATIONS = named("rsqrt")  # of norms that are written out
MATMUL = named("matmul bmm __matmul__ __rmatmul__") | {torch.linalg.matmul}
ADDED = named("addmm baddbmm addbmm addmv")  # products to which the first argument is added

MOVES = named(
    "__getitem__ adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax amin as_strided atleast_1d "
    "atleast_2d atleast_3d bfloat16 broadcast_tensors broadcast_to cat channel_shuffle chunk clone column_stack "
    "concat concatenate contiguous cpu cuda cummax cummin detach diag diag_embed diagonal diagonal_scatter double "
    "alpha_dropout feature_alpha_dropout "
    "dropout dropout1d dropout2d dropout3d dstack expand expand_as flatten flip fliplr flipud float fold gather half "
    "hsplit hstack index_add index_copy index_fill index_put index_select kthvalue masked_fill masked_scatter "
    "masked_select max max_pool1d max_pool2d max_pool3d median min moveaxis movedim msort nan_to_num narrow pad "
    "permute pixel_shuffle pixel_unshuffle positive __pos__ ravel register_hook repeat repeat_interleave "
    "requires_grad_ reshape reshape_as retain_grad roll rot90 scatter scatter_add select select_scatter slice_scatter "
    "sort split split_with_sizes squeeze stack swapaxes swapdims t take take_along_dim tensor_split tile to topk "
    "transpose tril triu type type_as unbind unflatten unfold unsqueeze view view_as vsplit vstack __setitem__ copy_ "
    "fill_ zero_ index_add_ index_copy_ index_fill_ index_put_ masked_fill_ masked_scatter_ scatter_ scatter_add_ "
    "squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_"
)
SAMPLED = named("grid_sample")
"""Linear in what is looked at, not in where."""
JOINED = named("cat concat concatenate stack hstack vstack dstack column_stack pad masked_fill")
"""Moves by which constants come in beside a stream."""
FILLED = named("pad masked_fill")
"""Those by which a number does."""
# A length is among them, for what Euler says of it: gradient x input is all of a length too.
LINEAR = named(
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d avg_pool2d avg_pool3d conv1d conv2d conv3d "
    "conv_transpose1d conv_transpose2d conv_transpose3d cumsum diff dot grouped_mm _grouped_mm inner interpolate kron "
    "linear mean mv nanmean nansum norm outer sum tensordot trace upsample vdot"
) | {torch.linalg.norm, torch.linalg.vector_norm, torch.linalg.vecdot}

_PLAIN = f"{_ODD} {_OTHERS} add sub subtract mul multiply div divide true_divide neg negative rsqrt softmax"


def _in_place() -> dict[Any, Any]:
    pairs: dict[Any, Any] = {}
    for name in _PLAIN.split():
        plain = next((getattr(room, name) for room in ROOMS if hasattr(room, name)), None)
        pairs |= {getattr(room, f"{name}_"): plain for room in ROOMS if hasattr(room, f"{name}_")}
    for name in ("add", "sub", "mul", "truediv", "pow"):
        pairs[getattr(torch.Tensor, f"__i{name}__")] = getattr(torch.Tensor, f"__{name}__")
    return pairs


IN_PLACE = _in_place()
"""What writes its result over its first argument, and what gives the same result elsewhere."""


def is_in_place(func: Any) -> bool:
    """Whether a call writes over its first argument."""
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.startswith("__"))


def chooses(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether this is a maximum or minimum of two tensors, entry by entry."""
    return func in CHOICES or (func in EXTREMES and len(args) > 1 and isinstance(args[1], Tensor))
