"""From a value of one pass to where it can be read and replaced in every pass."""

from __future__ import annotations

from torch import Tensor, nn

from captum_vit.description.graph import Graph
from captum_vit.description.stream import Layer
from captum_vit.description.values import Call, Op, Value
from captum_vit.errors import UnsupportedModelError
from captum_vit.models.modules import uncompiled
from captum_vit.sites.calls import ValueSite
from captum_vit.sites.site import Place, Site


class Places:
    """The places of one pass.

    A place at a module is given only where another tensor put there replaces the value for all who read it later:

    - the first tensor that enters a call, inside of which all readers lie, in whatever shape they read it;
    - the first tensor that leaves a call, which nobody inside reads.

    A result of a torch call otherwise.
    """

    def __init__(self, graph: Graph, layers: list[Layer], sizes: tuple[int, ...]) -> None:
        self.graph, self.sizes = graph, sizes
        self.attentions = [layer.attention.op for layer in layers]
        self.calls: dict[tuple[nn.Module, int], Call] = {}  # by module and number; of one that wraps another, the outer
        for call in graph.calls:
            self.calls.setdefault((uncompiled(call.module), call.nth), call)

    def entering(self, value: Value, inside: Call | None) -> Place:
        """The tokens that enter a block: at its own call, or the smallest call that all their readers lie in."""
        place = self.entered(value, inside)
        if place is None:
            raise UnsupportedModelError(
                f"A stream of shape {self.sizes}: samples, tokens and channels.",
                "one that no module and no torch call gives in this shape to all who read it: "
                + ", ".join(f"{tuple(v.tensor.shape)} by {v.op.name}" for v in value.root.same if v.op),
                "a model whose blocks take and return tokens with the batch first.",
            )
        return place

    def entered(self, value: Value, inside: Call | None) -> Site | ValueSite | None:
        """The same; None where no module and no torch call gives the value in this shape to all who read it."""
        complete = [c for c in self.taking(value) if self._holds_readers(c, value)]
        if inside in complete:
            return self.input_of(inside)
        return self.input_of(complete[-1]) if complete else self.at(value)

    def leaving(self, value: Value, call: Call) -> Place:
        """The tokens that leave a block: at its own call, unless parts of the model read them that share no call.

        A hook on the block may then have kept them for one of these parts, as Hugging Face's backbones do for a
        decoder. What is put at the module that makes them reaches the hook too.
        """
        shared = not any(self._holds_readers(c, value) for c in self.taking(value))
        made = self.at(value) if shared else None
        return made if isinstance(made, Site) else self.output_of(call)

    def read(self, layer: Layer, around: Call | None) -> Place | None:
        """What an attention reads: at the outermost call inside the block that takes it, and holds all its readers.

        A pre-norm block without a norm reads the stream itself: there it is the call that all its queries, keys and
        values are made in, since the stream goes on beside it; None where there is no such call, or in a post-norm
        block, whose attention reads what enters.
        """
        value, context = layer.reads, layer.attention.context
        stream = value.has_numbers_of(layer.stream)
        if stream and layer.post_norm:
            return None
        taking = [c for c in self.taking(value) if c is not around and not self._attends(c) - {layer.attention.op}]
        complete = [c for c in taking if self._holds_readers(c, value, context if stream else None)]
        attending = [c for c in complete if c.holds(layer.attention.op)]
        if complete:
            return self.input_of((attending or complete)[0])
        return None if stream else self.at(value)

    def seen(self, value: Value) -> Place | None:
        """A value that is read more than replaced: also where one of its readers takes this very tensor."""
        complete = [c for c in self.taking(value) if self._holds_readers(c, value)]
        if complete:
            return self.input_of(complete[0])
        by_value = self.at(value)
        if isinstance(by_value, ValueSite):
            very = [c for c in self.taking(value) if c.takes[0] is value]
            return self.input_of(very[0]) if very else by_value
        return by_value

    def at(self, value: Value) -> Site | ValueSite | None:
        """Where a value leaves a module, or the torch call that makes it; None where it has no shape of tokens."""
        left = [
            c
            for c in self.graph.giving.get(value.root, [])
            if self._fits(c.gives[0].tensor) and self._is_left(c, value)
        ]
        if left:
            return self.output_of(left[0])
        return self._result(value)

    def input_of(self, call: Call) -> Site:
        """The first tensor that enters a call."""
        return Site(uncompiled(call.module), "input", call.nth, self.graph.times(call.module))

    def output_of(self, call: Call) -> Site:
        """The first tensor that leaves a call."""
        return Site(uncompiled(call.module), "output", call.nth, self.graph.times(call.module))

    def taking(self, value: Value) -> list[Call]:
        """Calls whose first tensor it is, as (B, N, D), outer ones first."""
        return [c for c in self.graph.taking.get(value.root, []) if self._fits(c.takes[0].tensor)]

    def block_call(self, layer: Layer) -> Call | None:
        """The innermost call from what enters a block to what leaves it that holds no other attention."""
        around = [
            c
            for c in self.taking(layer.stream)
            if c.gives and c.gives[0].has_numbers_of(layer.out) and self._attends(c) == {layer.attention.op}
        ]
        return around[-1] if around else None

    def follow(self, left: Place, entered: Place) -> bool:
        """Whether one and the same tensor leaves a module and then enters one."""
        if not (isinstance(left, Site) and isinstance(entered, Site)):
            return False
        first, second = self.value_at(left), self.value_at(entered)
        return first is not None and first is second

    def value_at(self, site: Site | ValueSite) -> Value | None:
        """The tensor that enters or leaves one call of a module, or that a torch call makes."""
        if isinstance(site, ValueSite):
            made = (value for op in self.graph.ops if op.number == site.number for value in op.makes)
            return next((value for value in made if value.result == site.result), None)
        call = self.calls.get((site.module, site.nth))
        values = [] if call is None else call.takes if site.side == "input" else call.gives
        return values[0] if values else None

    def _attends(self, call: Call) -> set[Op]:
        """The attentions inside a call."""
        return {op for op in self.attentions if call.holds(op)}

    def _fits(self, tensor: Tensor) -> bool:
        return tensor.shape == self.sizes

    def _holds_readers(self, call: Call, value: Value, towards: Value | None = None) -> bool:
        """Whether all readers of a value lie in a call, and have it from the tensor that enters there.

        ``towards`` leaves out readers that take no part in making another value.
        """
        return all(
            call.holds(op) and shape.comes_by(call.takes[0])
            for shape, op in value.readers()
            if towards is None or any(towards.made_from(made) for made in op.makes)
        )

    def _is_left(self, call: Call, value: Value) -> bool:
        """Whether a call makes what leaves it, and all readers of the value come behind and have it from there."""
        made = call.gives[0].op
        return (
            made is not None
            and call.holds(made)
            and all(op.index >= call.end and shape.comes_by(call.gives[0]) for shape, op in value.readers())
        )

    def _result(self, value: Value) -> ValueSite | None:
        """The first torch call that gives the value in the shape of tokens to all who read it."""
        for made in value.root.same:
            op = made.op
            if op is None or op.number is None or made.result is None or not self._fits(made.tensor):
                continue
            if all(shape.comes_by(made) for shape, _ in value.readers()):
                return ValueSite(op.number, op.name, made.result, self.graph.number)
        return None


def name_in(model: nn.Module, module: nn.Module) -> str:
    """The dotted name of a module."""
    return next((name for name, m in model.named_modules() if m is module), "")
