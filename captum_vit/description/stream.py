"""The stream of tokens: what an attention adds to it, what it reads of it, and what follows up to the next one."""

from __future__ import annotations

from dataclasses import dataclass

from captum_vit.description.attention import Attention
from captum_vit.description.graph import Graph
from captum_vit.description.norms import is_norm_of
from captum_vit.description.values import ADD, FACTOR, PROJECT, RESHAPE, Op, Value

CROSS = "cross-attention, whose values are not made of the tokens that it adds to"


@dataclass(eq=False)
class Layer:
    """One attention, and the stream around it."""

    attention: Attention
    stream: Value  # that enters
    reads: Value  # that queries, keys and values are made of
    branch: Value  # what the attention adds, in the end
    joined: Value  # the stream with it
    scaled: bool  # the addition multiplies the stream or the branch
    mid: Value | None  # that the feed-forward adds to
    end: Value  # the stream with the feed-forward
    out: Value  # that leaves: the end, or its norm
    additions: int = 0
    parallel: bool = False
    again: bool = False  # what the attention makes is added once more, in another form

    @property
    def width(self) -> int:
        """How many numbers a token has."""
        return self.joined.tensor.shape[-1]

    @property
    def post_norm(self) -> bool:
        """Whether a norm stands on the stream itself."""
        return self.normed_end or self.normed_mid

    @property
    def normed_mid(self) -> bool:
        """Whether a norm stands on the stream behind the attention."""
        return self.mid is not None and not self.mid.has_numbers_of(self.joined)

    @property
    def normed_end(self) -> bool:
        """Whether a norm stands on the stream at the end."""
        return self.out is not self.end


def layer_of(graph: Graph, attention: Attention) -> Layer | str:
    """The first addition behind an attention of its branch to what it was made from; or why there is none."""
    context, cross = attention.context, False
    for op in graph.ops[attention.op.index + 1 :]:
        for stream, branch in operands(op):
            if not branch.made_from(context) or stream.made_from(context):
                continue
            entered, scaled = unscaled(stream, context)
            if entered is None or not graph.depends(entered):
                continue
            if not all(value.made_from(entered) for value in (attention.values, *attention.looks)):
                cross = cross or any(value.made_from(entered) for value in attention.looks)
                continue
            joined = op.makes[0]
            reads = reading_point(graph, entered, attention)
            scaled = scaled or op.name == "addcmul" or op.kwargs.get("alpha", 1) != 1
            return Layer(attention, entered, reads, branch, joined, scaled, joined, joined, joined)
    return CROSS if cross else "what it makes is not added to the tokens that it was made of"


def operands(op: Op) -> list[tuple[Value, Value]]:
    """The two sides of an addition, each as the stream and the other as the branch."""
    if op.name not in ADD or len(op.takes) < 2:
        return []
    size = op.makes[0].tensor.numel()
    sides = [v for v in op.takes if v.tensor.is_floating_point()]
    if len(sides) < 2:
        return []
    first, *others = sides if op.name == "addcmul" else sides[:2]
    pairs = [pair for other in others for pair in ((first, other), (other, first))]
    return [(x, y) for x, y in pairs if x.tensor.numel() == size]


def unscaled(stream: Value, context: Value) -> tuple[Value | None, bool]:
    """What is added to, and whether it was multiplied by a number before; None where the context is not made of it."""
    root = stream.root
    if context.made_from(root):
        return root, False
    if root.op is not None and root.op.name in FACTOR:
        for value in root.op.takes:
            if value.tensor.numel() == root.tensor.numel() and context.made_from(value.root):
                return value.root, True
    return None, False


def reading_point(graph: Graph, stream: Value, attention: Attention) -> Value:
    """The last value that every path from the stream to the context runs through, above the values' projection.

    Paths are counted from both sides: a value lies on all of them where the product is their number.
    """
    context, values = attention.context, attention.values
    inside = [
        v for v in graph.values[stream.number : context.number + 1] if v.made_from(stream) and context.made_from(v)
    ]
    there, back = {stream: 1}, {context: 1}
    for value in inside[1:]:
        there[value] = sum(there.get(taken, 0) for taken in value.op.takes) if value.op else 0
    for value in reversed(inside[:-1]):
        back[value] = sum(
            back.get(made, 0) * op.takes.count(value) for op in dict.fromkeys(value.users) for made in op.makes
        )
    gates = [v for v in inside[:-1] if there[v] * back[v] == there[context]]
    projected = [v for v in inside if values.made_from(v) and v.op is not None and v.op.name in PROJECT]
    above = [gate for gate in gates if any(v is not gate and v.made_from(gate) for v in projected)]
    return (above or gates)[-1].root


def add_feed_forwards(graph: Graph, layers: list[Layer]) -> None:
    """Find in each layer the additions behind that of its attention."""
    for k, layer in enumerate(layers):
        following = next((other for other in layers[k + 1 :] if other.stream.made_from(layer.joined)), None)
        before = layers[k - 1] if k else None
        most = None if following else max(before.additions, 1) if before else 1
        last = index_of(following.stream) if following else len(graph.ops)
        _add_feed_forward(graph, layer, last, most)


def _add_feed_forward(graph: Graph, layer: Layer, last: int, most: int | None) -> None:
    """Follow the stream from addition to addition; one to an earlier value of it takes the place of those between."""
    added: list[tuple[Value, Value, Value]] = []  # the sum, the stream, and the branch
    for op in graph.ops[index_of(layer.joined) + 1 : last + 1]:
        for stream, branch in operands(op):
            if op.makes[0].tensor.numel() != layer.joined.tensor.numel() or not branch.made_from(layer.stream):
                continue
            before = [layer.joined, *(total for total, *_ in added)]
            fits = [k for k, x in enumerate(before) if continues(stream, x) or normed(stream, x, branch)]
            if fits and fits[-1] != most:
                added[fits[-1] :] = [(op.makes[0], stream, branch)]
                break
    if added:
        _, stream, branch = added[0]
        layer.mid = layer.joined if continues(stream, layer.joined) else normed(stream, layer.joined, branch)
        layer.parallel = not branch.made_from(layer.joined)
        layer.again = layer.parallel and branch.made_from(layer.attention.context)
        layer.end = layer.out = added[-1][0]
    else:
        _take_branch_apart(graph, layer)
    layer.additions = len(added)
    if layer.parallel:
        layer.mid = None


def index_of(value: Value) -> int:
    """Of the torch call that makes a value; -1 of what the model was given."""
    return -1 if value.op is None else value.op.index


def continues(stream: Value, trunk: Value) -> bool:
    """Whether one is the other, up to its shape and a factor."""
    if stream.has_numbers_of(trunk):
        return True
    op = stream.root.op
    return op is not None and op.name in FACTOR and any(v.has_numbers_of(trunk) for v in op.takes)


def normed(stream: Value, trunk: Value, branch: Value) -> Value | None:
    """The norm of one value that a branch is made of and added to, if it is one."""
    base, _ = unscaled(stream, branch)
    if base is None or base is trunk.root or not base.made_from(trunk):
        return None
    return base if is_norm_of(base, trunk) else None


def _take_branch_apart(graph: Graph, layer: Layer) -> None:
    """Whether the branch is the sum of the attention's and another one from the same stream: the two run in parallel.

    The branch is then the attention's own, if nothing but additions follows it.
    """
    context = layer.attention.context
    on_the_path = [
        op
        for op in graph.ops[layer.attention.op.index + 1 : index_of(layer.joined)]
        if op.makes[0].made_from(context) and layer.branch.made_from(op.makes[0])
    ]
    for k, op in enumerate(on_the_path):
        for other, own in operands(op):
            if own.made_from(context) and other.made_from(layer.stream) and not other.made_from(context):
                layer.parallel = True
                if all(behind.name in ADD | RESHAPE for behind in on_the_path[k:]):
                    layer.branch = own
                return
