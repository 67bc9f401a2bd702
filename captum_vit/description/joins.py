"""The stream of a network of any kind: values to which something made of them is added, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from captum_vit.description.attention import PART
from captum_vit.description.graph import Graph
from captum_vit.description.stream import index_of, operands, unscaled
from captum_vit.description.values import PROJECT, Op, Value

WORK = PROJECT | {
    "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "layer_norm", "rms_norm", "group_norm",
    "batch_norm", "instance_norm", "scaled_dot_product_attention",
}  # fmt: skip
TOGETHER = {"cat", "concat", "concatenate"}
FEWEST = 2  # joins of a stream


@dataclass(eq=False)
class Join:
    """A value, and the sum of it and a branch that is made of it."""

    op: Op
    stream: Value  # all of it, where the addition takes a part
    given: Value  # the tensor that the addition takes for the stream
    branch: Value
    origins: list[Value]  # what the branch is made of: the stream, or what it is put together from

    @property
    def whole(self) -> Value:
        """The stream as the addition takes it; where it takes a part, as it is before."""
        return self.given if self.given.has_numbers_of(self.stream) else self.stream

    @property
    def joined(self) -> Value:
        """The sum."""
        return self.op.makes[0]

    def holds(self, value: Value) -> bool:
        """Whether a value lies in the branch."""
        begins = any(value.has_numbers_of(origin) for origin in (self.stream, *self.origins))
        return not begins and any(map(value.made_from, self.origins)) and self.branch.made_from(value)


def joins_of(graph: Graph, batch: int) -> list[Join]:
    """Those that lie in no branch of another one; where these are too few, the outermost ones inside them."""
    found = [join for op in graph.ops if (join := _join(graph, op, batch)) is not None]
    outer: list[Join] = []
    while found and len(outer) < FEWEST:
        outer = [join for join in found if not any(other.holds(join.joined) for other in found)]
        found = [join for join in found if join not in outer]
    return outer


def _join(graph: Graph, op: Op, batch: int) -> Join | None:
    made = op.makes[0].tensor if op.makes else None
    if op.number is None or made is None or made.dim() < 3 or len(made) != batch or made.shape[1:-1].numel() == 1:
        return None
    for given, branch in operands(op):
        stream, _ = unscaled(given, branch)
        origins = [] if stream is None else [stream]
        if stream is None:
            stream, origins = given.root, _parts(graph, given, branch)
            if origins and stream.op is not None and stream.op.name in PART:
                stream = origins[0]
        if origins and graph.depends(stream) and any(_works(graph, origin, branch) for origin in origins):
            return Join(op, stream, given, branch, origins)
    return None


def _parts(graph: Graph, given: Value, branch: Value) -> list[Value]:
    """What a stream is a part of, or is put together from, if the branch is made of that."""
    root = given.root
    if root.op is None or root.op.name not in PART | TOGETHER:
        return []
    parts = [value.root for value in root.op.takes if graph.depends(value)]
    return parts if all(branch.made_from(part) for part in parts) else []


def _works(graph: Graph, stream: Value, branch: Value) -> bool:
    """Whether a layer lies between them, so that it is no function that is written out."""
    between = graph.ops[index_of(stream) + 1 : index_of(branch) + 1]
    return any(
        op.name in WORK and op.makes[0].made_from(stream) and branch.made_from(op.makes[0])
        for op in between
        if op.makes
    )


def bare_pasts(graph: Graph, joins: list[Join]) -> dict[Value, int]:
    """Of each value a bit for every one that it is made from where no branch adds anything."""
    streams = {join.op: join.given for join in joins}
    pasts: dict[Value, int] = {}
    for value in graph.values:
        past = 1 << value.number
        taken = value.op.takes if value.op else []
        if value.op in streams:
            taken = [streams[value.op]]
        for one in taken:
            past |= pasts.get(one, 1 << one.number)
        pasts[value] = past
    return pasts


def chain_of(joins: list[Join], pasts: dict[Value, int]) -> list[Join]:
    """The longest row of joins of which each stream comes from the one before, by more than branches."""
    rows: list[list[Join]] = []
    for join in joins:
        before = [row for row in rows if pasts[join.stream] >> row[-1].joined.number & 1]
        rows.append([*max(before, key=len, default=[]), join])
    return max(rows, key=len, default=[])
