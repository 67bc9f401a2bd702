"""Which cells of a block the rows of tensors belong to, while they are cut into windows, heads and pooled keys.

Where every token attends to every token, tensors inside a block have as many rows as there are tokens, in their order.
Windows are other rows in another order, and pooled keys stand for several cells each. So each tensor carries, entry by
entry, the place of its cell: what moves entries moves places too, and what averages cells averages them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.sites.calls import name_of
from captum_vit.sites.mode import Mode
from captum_vit.sites.nests import tensors_in
from captum_vit.trace.modes.functions import LINEAR, MATMUL, is_in_place, named

PLACES = "_places"
MOVES = named(
    "__getitem__ cat concat concatenate stack hstack vstack chunk split split_with_sizes tensor_split unbind flatten "
    "unflatten reshape reshape_as view view_as transpose permute movedim moveaxis swapaxes swapdims squeeze unsqueeze "
    "expand expand_as repeat repeat_interleave roll flip narrow select index_select gather take_along_dim tile t "
    "pixel_shuffle pixel_unshuffle __setitem__ copy_"
)
AS_COPY = {Tensor.view: Tensor.reshape, Tensor.view_as: Tensor.reshape_as}
"""Places lie in memory otherwise: one number stands for all features of a row."""
ATTRIBUTES = ("T", "mT", "H", "mH")
BY_ROWS = MATMUL | named("linear scaled_dot_product_attention")
BY_AREA = (LINEAR & named(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate"
)) | named("max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d")  # fmt: skip
_UNKNOWN = torch.tensor(torch.nan)


class Cells(Mode):
    """Lets what is made of tokens carry the places of its rows: one number for each axis, not a number where unknown.

    Enter it before the modes that ask :func:`places_of`.
    """

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        marked = [x for x in tensors_in((args, kwargs)) if PLACES in x.__dict__]
        if marked:
            with torch._C.DisableTorchFunction():
                _carry(func, args, kwargs, marked, result)
        return result


def place_tokens(
    x: Tensor,
    features: int | None,  # the axis of features; None: of tokens (B, N, D)
    places: Tensor,  # shape: (A, N)
) -> None:
    """Let tokens carry the numbers of their samples, and their places in a grid."""
    axis = x.dim() - 1 if features is None else features
    shape = x.movedim(axis, -1).shape[:-1]  # (B, ...)
    sample = torch.arange(shape[0], device=x.device, dtype=places.dtype).unsqueeze(1).expand(-1, places.shape[1])
    each = [sample, *(along.expand(shape[0], -1) for along in places)]
    setattr(x, PLACES, [_over(one.reshape(shape), axis, x) for one in each])


def places_of(
    x: Tensor,
    features: int,  # an axis
) -> list[Tensor] | None:  # shape of each: that of x without the axis
    """What a tensor carries, the number of the sample first; None where it carries nothing."""
    found: list[Tensor] | None = x.__dict__.get(PLACES)
    return None if found is None else [_by_row(one, features) for one in found]


def _over(rows: Tensor, axis: int, like: Tensor) -> Tensor:
    """The same number for all features, stored once."""
    return rows.unsqueeze(axis).expand(like.shape)


def _by_row(places: Tensor, features: int) -> Tensor:
    """One number for each row: the mean over its features, which may be those of several cells side by side."""
    return places.select(features, 0) if places.stride(features) == 0 else places.mean(features)


def _carry(func: Any, args: Any, kwargs: Any, marked: list[Tensor], result: Any) -> None:
    if func in MOVES or func is F.pad or name_of(func) in ATTRIBUTES:
        axes = range(len(marked[0].__dict__[PLACES]))
        results = tensors_in(args[0] if is_in_place(func) else result)
        for x, *places in zip(results, *(tensors_in(_moved(func, args, kwargs, axis)) for axis in axes), strict=True):
            setattr(x, PLACES, places)
    elif isinstance(result, Tensor):
        found = _made(func, marked, result)
        if found is not None:
            setattr(result, PLACES, found)


def _moved(func: Any, args: Any, kwargs: Any, axis: int) -> Any:
    """The same call on places along one axis; what is filled up has none."""
    if func is F.pad:
        given = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | kwargs
        filled = {"value": torch.nan} if given.get("mode", "constant") == "constant" else {}
        return F.pad(**{**given, "input": _places(given["input"], axis), **filled})
    args, kwargs = _places(args, axis), _places(kwargs, axis)
    if not is_in_place(func):
        return AS_COPY.get(func, func)(*args, **kwargs)
    into = args[0].clone()
    func(into, *args[1:], **kwargs)
    return into


def _places(tree: Any, axis: int) -> Any:
    """Places for tensors; of what carries none they are not known."""
    if isinstance(tree, Tensor):
        if PLACES in tree.__dict__:
            return tree.__dict__[PLACES][axis]
        return _UNKNOWN.to(tree.device).expand(tree.shape) if tree.is_floating_point() else tree
    if isinstance(tree, dict):
        return {name: _places(x, axis) for name, x in tree.items()}
    return type(tree)(_places(x, axis) for x in tree) if type(tree) in (tuple, list) else tree


def _made(func: Any, marked: list[Tensor], result: Tensor) -> list[Tensor] | None:
    """Places of what is made of rows one by one, or of cells that lie beside each other."""
    same = next((x for x in marked if x.shape == result.shape), None)
    if same is not None:
        found: list[Tensor] = same.__dict__[PLACES]
        return found
    if func in BY_ROWS:
        rows = next((x for x in marked if x.shape[:-1] == result.shape[:-1]), None)
        return None if rows is None else [_over(_by_row(one, -1), -1, result) for one in rows.__dict__[PLACES]]
    x = marked[0]
    if func not in BY_AREA or x.dim() != result.dim() or all(size == 1 for size in result.shape[2:]):
        return None
    cells = [_by_row(one, 1) for one in x.__dict__[PLACES]]
    if result.shape[2:] != x.shape[2:]:
        cells = [F.interpolate(one.unsqueeze(1), result.shape[2:], mode="area").squeeze(1) for one in cells]
    return [_over(one, 1, result) for one in cells]
