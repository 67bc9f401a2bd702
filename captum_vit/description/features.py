"""Which axis of a tensor holds the features of a cell: that on which the layers that read it work."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_vit.description.graph import Graph
from captum_vit.description.norms import norm_behind
from captum_vit.description.values import FACTOR, RESHAPE, Op, Value

ON_SECOND = {
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm",
    "group_norm", "instance_norm",
}  # fmt: skip
ON_LAST = {"linear", "layer_norm", "rms_norm"}
BACK = 8  # torch calls from a branch to the layer that made it


def features_of(value: Value, branch: Value) -> int | None:
    """The axis of a tensor that a layer behind it works on; else that of the layer that made what is added, or it.

    A layer that reads the numbers in another shape says which they are: slices along its axis hold the same numbers.
    """
    found = (
        axis_like(value.tensor, form.tensor, axis)
        for form, op in value.readers()
        if op.takes[0] is form and (axis := _works_on(op, form.tensor.dim())) is not None
    )
    axis = next((axis for axis in found if axis is not None), None)
    if axis is not None:
        return axis
    made = (axis_like(value.tensor, *by, numbers=False) for by in map(_maker, (branch, value)) if by is not None)
    return next((axis for axis in made if axis is not None), None)


def axis_like(x: Tensor, y: Tensor, axis: int, numbers: bool = True) -> int | None:
    """The axis of x along which its slices hold the numbers of those of y; of the same size where there is only one."""
    axis %= y.dim()
    sized = [a for a in range(1, x.dim()) if x.shape[a] == y.shape[axis]]
    if len(sized) < 2 or x.numel() != y.numel():
        return sized[0] if len(sized) == 1 else None
    if x.shape == y.shape and torch.equal(x, y):
        return axis
    if not numbers:
        return axis if axis in sized and x.dim() == y.dim() else None
    slices = y.movedim(axis, 0).flatten(1).sort(-1).values
    return next((a for a in sized if torch.equal(x.movedim(a, 0).flatten(1).sort(-1).values, slices)), None)


def norm_of_stream(graph: Graph, stream: Value, axis: int, branch: Value) -> Value | None:
    """The norm of each cell of a stream that a branch begins with; None where it begins with something else."""
    form = next((v for v in stream.root.same if axis_like(v.tensor, stream.tensor, axis) == v.tensor.dim() - 1), None)
    norm = None if form is None else norm_behind(graph, form)
    return norm if norm is not None and branch.made_from(norm) else None


def _works_on(op: Op, dims: int) -> int | None:
    if op.name in ON_SECOND:
        return 1
    return dims - 1 if op.name in ON_LAST else None


def _maker(branch: Value) -> tuple[Tensor, int] | None:
    """Back through changes of shape and scale to what a layer gave, and its axis."""
    value = branch
    for _ in range(BACK):
        op = value.op
        if op is None:
            return None
        axis = _works_on(op, value.tensor.dim())
        if axis is not None:
            return value.tensor, axis
        same = [v for v in op.takes if v.tensor.numel() == value.tensor.numel()]
        if op.name not in RESHAPE | FACTOR or not same:
            return None
        value = same[0]
    return None
