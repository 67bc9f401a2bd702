"""What a model computes before the sigmoid or softmax that its output is the result of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.output import held_by, tensor_of
from captum_vit.sites.mode import Mode
from captum_vit.targets.scores import TargetModule

IN_PLACE = frozenset({torch.sigmoid_, Tensor.sigmoid_})
SIGMOIDS = IN_PLACE | {torch.sigmoid, Tensor.sigmoid, F.sigmoid, torch.special.expit}
SOFTMAXES = frozenset(
    {F.softmax, torch.softmax, Tensor.softmax, F.log_softmax, torch.log_softmax, Tensor.log_softmax, F.logsigmoid}
)


class Activations(Mode):
    """Keeps what went into the last sigmoid or softmax of each shape, and what came out."""

    def __init__(self, functions: Collection[Any]) -> None:
        super().__init__()
        self.reads = functions
        self.last: dict[torch.Size, tuple[Tensor, Tensor]] = {}

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = args[0] if args else kwargs["input"]
        given = given.clone() if func in IN_PLACE else given
        made = func(*args, **kwargs)
        self.last[made.shape] = given, made
        return made

    def before(self, output: Tensor) -> Tensor | None:
        """What went into the function whose result the output is, number for number; None if there is none."""
        given, made = self.last.get(output.shape, (None, None))
        with torch._C.DisableTorchFunction():  # no call of the model
            return given if made is output or (made is not None and torch.equal(made, output)) else None


class BeforeActivation(TargetModule):
    """The logits of a model that ends in a sigmoid or a softmax: what went into it, of the same shape.

    A probability is no sum over tokens: rules that hold parts of a network constant refuse it, and a plain gradient
    vanishes where the probability is near 0 or 1. The last sigmoid or softmax is found in the very pass, as the call
    whose result the output is, number for number; no layer is named. Costs the model's forward.

    Args:
        model: its output is the result of a sigmoid, a softmax, or the logarithm of one.
        output: which of several outputs, by its name or place; None for the logits of an object that holds such.

    Raises:
        UnsupportedModelError: in the forward, an output that is no such result, because something follows the sigmoid
            for instance, such as a factor or a resize.

    Example:
        >>> Pixel(BeforeActivation(unet_with_sigmoid), (40, 52))  # doctest: +SKIP
    """

    def __init__(self, model: nn.Module, output: str | int | None = None) -> None:
        super().__init__(model, getattr(model, "tower", None))
        self.output = output

    def forward(self, *inputs: Any) -> Tensor:
        with Activations(SIGMOIDS | SOFTMAXES) as seen:
            output = self.model(*inputs)
        found = tensor_of(output, self.output)
        before = seen.before(found)
        if before is None:
            raise UnsupportedModelError(
                "A model whose output is the result of a sigmoid or a softmax.",
                f"{type(self.model).__name__}, in which no such call gives its output of shape {tuple(found.shape)}",
                "the model itself, if it gives logits; captum_vit.Scalar with what undoes the last step.",
            )
        return before


def boxes_of(
    model: nn.Module, inputs: tuple[Any, ...], name: str | int | None
) -> tuple[list[tuple[Tensor, Tensor]], str]:
    """Outputs (B, Q, 4), each with what went into its sigmoid; and all outputs in words, for an error.

    Without a name they are those that are the result of a sigmoid; a named one that is none stands for both.
    """
    with Activations(SIGMOIDS) as seen:
        output = model(*inputs)
    outputs: Mapping[str | int, Tensor] = held_by(output) if name is None else {name: tensor_of(output, name)}
    pairs = [(x, seen.before(x)) for x in outputs.values() if x.dim() == 3 and x.shape[-1] == 4]
    boxes = [(x, x if before is None else before) for x, before in pairs if before is not None or name is not None]
    return boxes, ", ".join(f"{key!r} {tuple(x.shape)}" for key, x in outputs.items()) or type(output).__name__


def box_logits(model: nn.Module, inputs: tuple[Any, ...], name: str | int | None) -> Tensor:  # shape: (B, Q, 4)
    """Four numbers for each query, as they are before their sigmoid.

    Raises:
        UnsupportedModelError: no such output, or several.
    """
    boxes, outputs = boxes_of(model, inputs, name)
    if len(boxes) == 1:
        return boxes[0][1]
    raise UnsupportedModelError(
        "A model with one output (samples, queries, 4) that is the result of a sigmoid.",
        f"{type(model).__name__} with {len(boxes)} of them among {outputs}",
        "output=..., with the name or the place of the boxes.",
    )
