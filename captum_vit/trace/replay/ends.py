"""A probability at the end of a model: under a rule that holds slopes, the score is to be taken before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.output import scores_of
from captum_vit.sites.calls import name_of
from captum_vit.sites.mode import Mode
from captum_vit.sites.nests import tensors_in
from captum_vit.sites.site import ThisThreadOnly
from captum_vit.trace.modes.attention_weights import SOFTMAX
from captum_vit.trace.modes.functions import named
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.watch import model_errors_as_ours


class _Ends(Mode):
    """Keeps what sigmoids and softmaxes make, and of what."""

    reads = named("sigmoid expit sigmoid_") | SOFTMAX

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, Tensor, Tensor]] = []

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        self.made.append((name_of(func), args[0] if args else kwargs["input"], result))
        return result


def refuse_probability(call: Pass) -> None:
    """Refuse scores that a sigmoid or softmax inside the model made, by the layer before it; one pass without a graph.

    Found where the scores lie in the memory that it wrote, as they are, or a part or another shape of them.

    Raises:
        UnsupportedModelError: they are probabilities.
    """
    layers: list[tuple[str, nn.Module, list[Tensor]]] = []
    named_modules = [
        (name, module) for name, module in call.model.named_modules() if name and not list(module.children())
    ]

    def keep(name: str) -> ThisThreadOnly:
        return ThisThreadOnly(lambda module, given, output: layers.append((name, module, tensors_in(output))))

    ends, handles = _Ends(), []
    try:
        for name, module in named_modules:
            handles.append(module.register_forward_hook(keep(name)))
        with model_errors_as_ours(call.model, *call.inputs, *call.args), torch.no_grad(), ends:
            scores = scores_of(call.run())
    finally:
        for handle in handles:
            handle.remove()
    for function, before, made in ends.made:
        if _same_memory(made, scores):
            found = [
                f"`{n}` ({type(m).__name__})"
                for n, m, outputs in layers
                if any(_same_memory(before, x) for x in outputs)
            ]
            layer = found[0] if found else "the call before it"
            raise UnsupportedModelError(
                "Scores before they are made probabilities, for a rule under which tokens and biases sum to them.",
                f"a {function} at the end, of what {layer} gives",
                f'captum_vit.BeforeActivation(model), whose outputs are what {layer} gives; or rule="grad".',
            )


def _same_memory(x: Tensor, y: Tensor) -> bool:
    return x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()
