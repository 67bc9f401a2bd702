"""What cannot be described, each refused with what was found in this very model."""

from __future__ import annotations

from typing import Any

from torch import nn

from captum_vit.description.attention import Attention
from captum_vit.description.graph import Graph
from captum_vit.description.stack import layers_behind
from captum_vit.description.stream import CROSS, Layer
from captum_vit.description.values import Op, Value
from captum_vit.errors import UnsupportedModelError
from captum_vit.models.modules import named_tower

CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
RANDOM = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "multinomial",
    "bernoulli", "poisson", "normal_", "uniform_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_",
    "geometric_",
}  # fmt: skip
DROPOUT = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"}
WANTED = "Blocks in which every token attends to every token, and one stream to which each attention adds."
HINT = "a model whose blocks do so, or a part of it as the model to explain."
Others = list[tuple[Attention, str]]


def checked_chain(graph: Graph, model: nn.Module, batch: int, chains: list[list[Layer]], others: Others) -> list[Layer]:
    """The one stack of blocks in a model.

    Raises:
        UnsupportedModelError: there is none, or several, or it has parts that break the assumptions of every method.
    """
    if not chains:
        raise refused(model, _nothing(graph, others))
    chains, others = _in_tower(graph, model, chains, others)
    sound = [c for c in chains if not _fault(graph, c, batch)]
    chain = sound[0] if sound else chains[0]
    if fault := _fault(graph, chain, batch):
        sequences = _sequences(chain[0])
        raise several_sequences(sequences, batch) if sequences > batch else refused(model, fault)
    if len(sound) > 1:
        again = _modules(graph, sound[0]) == _modules(graph, sound[1])
        raise runs_again(model) if again else _several(model, sound)
    foreign = [layer.attention for c in chains if c is not chain for layer in c]
    for attention in foreign:
        place = _place(attention, chain) or "behind"
        raise refused(
            model, f"blocks in which {_shape(attention)} {place} blocks in which {_shape(chain[0].attention)}"
        )
    tokens = chain[0].attention.rows
    for attention, why in others:  # a head may pool by attention
        behind = "behind" if why == CROSS or (attention.rows > 1 and attention.columns != tokens) else ""
        if place := _place(attention, chain) or behind:
            raise refused(model, f"an attention of {attention.rows} to {attention.columns} {place} the blocks: {why}")
    random = random_call(graph, layers_behind(graph, chain[-1].out))
    if random is not None:
        raise refused(model, f"random numbers ({random.name}) that take part in its tokens: every pass is another one")
    return chain


def random_call(graph: Graph, value: Value) -> Op | None:
    """A call that draws numbers that take part in making a value."""
    return next((op for op in graph.ops if _is_random(op) and value.made_from(op.makes[0])), None)


def _is_random(op: Op) -> bool:
    """Whether a call draws numbers: also dropout that is on whatever the mode of the model."""
    if op.name == "scaled_dot_product_attention":
        return bool(_argument(op, 4, "dropout_p", 0.0))
    return op.name in RANDOM or (
        op.name in DROPOUT and bool(_argument(op, 2, "training", True)) and bool(_argument(op, 1, "p", 0.5))
    )


def _argument(op: Op, position: int, name: str, default: Any) -> Any:
    return op.args[position] if len(op.args) > position else op.kwargs.get(name, default)


def _nothing(graph: Graph, others: Others) -> str:
    if others:
        return f"{len(others)} attentions, of which the first: {others[0][1]}"
    softmaxes = sum(op.name == "softmax" for op in graph.ops)
    return (
        "no attention: no call of scaled_dot_product_attention among "
        f"{graph.number} torch calls, and none of {softmaxes} softmaxes is multiplied onto values"
    )


def _in_tower(
    graph: Graph, model: nn.Module, chains: list[list[Layer]], others: Others
) -> tuple[list[list[Layer]], Others]:
    """Those within the tower that a target module names, if it names one that was called."""
    tower = named_tower(model)
    calls = [c for c in graph.calls if c.module is tower]
    within = [c for c in chains if any(call.holds(c[0].attention.op) for call in calls)]
    if not within:
        return chains, others
    return within, [(a, why) for a, why in others if any(call.holds(a.op) for call in calls)]


def _fault(graph: Graph, chain: list[Layer], batch: int) -> str:
    """What a stack of blocks has that no method expects, or nothing."""
    for k, layer in enumerate(chain):
        attention, stream = layer.attention, layer.joined.tensor
        tokens = stream.numel() // layer.width // batch
        where = f"block {k}, in which "
        if attention.between:
            return where + f"{', '.join(attention.between)} stands between the softmax and the values"
        fits = [v for v in layer.stream.same if v.tensor.dim() == 3 and len(v.tensor) == batch]
        if stream.dim() == 3 and len(stream) != batch == stream.shape[1]:
            return where + f"the stream is {tuple(stream.shape)}, the sequence before the batch of {batch}"
        if not attention.rows == attention.columns == tokens:
            return where + f"{_shape(attention)}, with a stream of {tokens} tokens: windows, channels, or other tokens"
        if not fits or (stream.dim() == 3 and len(stream) != batch):
            return where + f"the stream is {tuple(stream.shape)}, not one sequence for each of {batch} samples"
        if _of_channels(layer, batch):
            return where + "channels attend to channels"
        if (convolution := _convolution(graph, layer)) is not None:
            size = "x".join(map(str, convolution.takes[1].tensor.shape[2:]))
            return where + f"a convolution of {size} ({convolution.name}) mixes tokens beside the attention"
        if layer.again:
            return where + "what the attention makes is added to the stream twice, in two forms"
        if any(layer.stream.has_numbers_of(other.stream) for other in chain if other is not layer):
            return where + "a second attention reads the stream that another one reads"
        if k and (others := _put_anew(chain[k - 1], layer)):
            return where + f"{others} of {tokens} tokens are put in anew, in the place of those that block {k - 1} made"
        bare = layer.additions == 0 and not layer.parallel
        following = chain[k + 1].stream if k + 1 < len(chain) else None
        if bare and following is not None and following.has_numbers_of(layer.joined):
            if any(other.additions for other in chain):
                return where + "a second attention follows the first without a feed-forward between them"
        elif bare and (following is not None or any(other.additions for other in chain)):
            return where + "no feed-forward adds to the stream behind the attention"
    return ""


def _sequences(layer: Layer) -> int:
    """How many sequences of tokens there are, each with an attention of its own; 0 where that is not seen."""
    attention, shape = layer.attention, layer.joined.tensor.shape
    return shape[0] if len(shape) == 3 and attention.rows == attention.columns == shape[1] else 0


def _put_anew(before: Layer, layer: Layer) -> int:
    """How many tokens are others than those that left the block before, where the rest are the same ones.

    Zeros are no others: they are tokens behind a mask. Nor is what is not a number, which no comparison finds again.
    """
    made, entered = before.end.tensor, layer.stream.tensor
    if made.shape != entered.shape:
        return 0
    same = (made == entered).all(-1) | entered.isnan().any(-1)
    others = ~same & entered.any(-1)
    return int(others.flatten().sum()) // (same.numel() // same.shape[-1]) if same.any() else 0


def _of_channels(layer: Layer, batch: int) -> bool:
    """Whether the places that attend are no tokens, where heads are as wide as the sequence is long.

    The numbers of a token, in whatever order, are then those of a channel of all tokens.
    """
    heads, sizes = layer.attention.heads, (batch, layer.attention.rows)
    merged = [v.tensor for v in layer.attention.context.root.same if v.tensor.shape[:-1] == sizes]
    if heads is None or heads.shape[-1] != heads.shape[-2] or not merged:
        return False
    numbers = merged[0].sort(-1).values  # shape: (B, N, D)
    rows, columns = (x.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2) for x in (heads, heads.mT))
    as_rows, as_columns = (bool((numbers == x.sort(-1).values).all()) for x in (rows, columns))
    return as_columns and not as_rows


def _shape(attention: Attention) -> str:
    return f"{attention.rows} places attend to {attention.columns}"


def _convolution(graph: Graph, layer: Layer) -> Op | None:
    """A convolution over more than one place, on the paths through a block."""
    assert layer.end.op is not None
    start = 0 if layer.stream.op is None else layer.stream.op.index + 1
    for op in graph.ops[start : layer.end.op.index]:
        wide = op.name in CONVOLUTIONS and any(size > 1 for size in op.takes[1].tensor.shape[2:])
        if wide and op.makes[0].made_from(layer.stream) and layer.end.made_from(op.makes[0]):
            return op
    return None


def _place(attention: Attention, chain: list[Layer]) -> str:
    """Where an attention of another kind lies, if the stack depends on it."""
    first, last = chain[0], chain[-1]
    if first.stream.made_from(attention.context):
        return "before"
    return "among" if last.end.made_from(attention.context) else ""


def refused(model: nn.Module, got: str) -> UnsupportedModelError:
    """The error about a model with something that no method expects."""
    return UnsupportedModelError(WANTED, f"{type(model).__name__} with {got}", HINT)


def several_sequences(sequences: int, batch: int) -> UnsupportedModelError:
    """The error about a model that reads several parts of a sample, each by itself."""
    return UnsupportedModelError(
        "A model that gives its transformer one sequence for each sample.",
        f"{sequences} sequences for {batch} samples",
        "one part of every sample at a time (ids[:, :1] and its masks, with target=0), or the module inside, "
        "on the parts themselves: a map belongs to one view of a sample, not to several.",
    )


def _modules(graph: Graph, chain: list[Layer]) -> list[nn.Module]:
    """The innermost module in which each attention of a stack is made."""
    return [[c for c in graph.calls if c.holds(layer.attention.op)][-1].module for layer in chain]


def runs_again(model: nn.Module) -> UnsupportedModelError:
    """The error about a model that runs one stack of blocks several times, such as on an image and its mirror image."""
    return UnsupportedModelError(
        "A model that runs its transformer once in a pass.",
        f"{type(model).__name__}, in which the first block ran again",
        "the module inside that runs once: a map belongs to one view of the input, not to several.",
    )


def _several(model: nn.Module, chains: list[list[Layer]]) -> UnsupportedModelError:
    first, second = chains[:2]
    stacks = ", ".join(f"{len(c)} blocks on a stream of {tuple(c[0].joined.tensor.shape)}" for c in chains)
    if second[0].stream.made_from(first[-1].end):
        return refused(model, f"a stream that changes its size on the way: {stacks}")
    return UnsupportedModelError(
        "A model with one transformer, or a target module that names the tower to explain.",
        f"{type(model).__name__} with {len(chains)} transformers: {stacks}",
        "captum_vit.TextSimilarity(model, ...) for an image-text model, or a module of yours whose attribute "
        "`tower` is the part to explain.",
    )
