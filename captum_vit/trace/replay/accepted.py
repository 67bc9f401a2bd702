"""Whether a rule that says that it is complete is so on a model: tried once, and remembered."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import copy

from torch import Tensor, nn

from captum_vit.errors import UnsupportedModelError
from captum_vit.sites.site import Place
from captum_vit.trace.modes.completeness import COMPLETE, custom_functions
from captum_vit.trace.replay.ends import refuse_probability
from captum_vit.trace.replay.hidden import refuse_hidden
from captum_vit.trace.replay.proof import proof
from captum_vit.trace.run.describe import remembered, shapes_of, where_of
from captum_vit.trace.run.passes import Pass


def refuse_incomplete(call: Pass, place: Place, rule: str) -> None:
    """Refuse what a rule that says that tokens and biases sum to the score is not complete on, or says nothing about.

    That is a model whose scores are probabilities: found by a pass of one sample, once for each model. And a network on
    which they do not sum to the score, or in which something depends on the tokens and has no graph: nothing is tried
    where attention can be followed; else it costs two forward passes and a backward pass of a sample, the first time
    that a model is given inputs of this shape. Call it inside ``undisturbed``, and under no rule.

    Raises:
        UnsupportedModelError: a sigmoid or softmax at the end, the first operation that the rule does not cover, the
            two sums, or where something without a graph is added.
    """
    if rule not in COMPLETE:
        return
    first = call.of_first()
    _once(call.model, "ends", lambda: refuse_probability(first))

    def refuse() -> None:
        proof(first, place, rule).refuse()
        refuse_hidden(first, place, rule)

    if call.transformer.refusal is not None:
        _once(call.model, _key(call, place, rule), refuse)


def refuse_own_derivatives(call: Pass, place: Place, rule: str, output: Tensor) -> None:
    """The same for a network with a function that brings its own derivative, which the rule cannot see as it runs.

    Such functions are looked for in the graph of the output, the first time that a model is given inputs of this shape.
    """

    def refuse() -> None:
        if any(custom_functions(output.grad_fn)):
            proof(call.of_first(), place, rule).refuse()

    if rule in COMPLETE:
        _once(call.model, _key(call, place, rule), refuse)


def _key(call: Pass, place: Place, rule: str) -> Hashable:
    return rule, where_of(place), shapes_of(call.inputs, call.args)


def _once(model: nn.Module, key: Hashable, refuse: Callable[[], None]) -> None:
    """What refuses a model, the first time; later as then."""
    known = remembered(model).proofs
    if key not in known:
        try:
            refuse()
            known[key] = None
        except UnsupportedModelError as error:
            known[key] = copy(error)
    refusal = known[key]
    if refusal is not None:
        raise copy(refusal)
