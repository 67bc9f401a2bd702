"""From whatever a model returns to one tensor of scores."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_vit.errors import TraceError
from captum_vit.models.modules import modules_of

_NAMES = ("logits", "logits_per_image", "image_embeds", "text_embeds", "pooler_output", "last_hidden_state")


def scores_of(output: Any) -> Tensor:  # shape: (B, K)
    """The tensor that a target indexes: the output itself, its logits, or its pooled embedding."""
    if isinstance(output, Tensor):
        return output
    for name in _NAMES:
        found = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    if hasattr(output, "start_logits"):
        hint = "captum_vit.AnswerSpan(model), with target=(position, 0) for the start."
        raise TraceError("Scores in one tensor.", "start and end logits of a span", hint)
    raise TraceError(
        f"A model that returns a tensor, or an object with one of {', '.join(_NAMES)}.",
        type(output).__name__,
        "captum_vit.Scalar(model, function) with a function that takes the tensor out.",
    )


def gives_raw_scores(model: nn.Module) -> bool:
    """True where a softmax over the outputs would mean nothing: target modules and regression heads."""
    return any(
        _ordinary(module, "raw_scores") or getattr(_ordinary(module, "config"), "problem_type", None) == "regression"
        for module in modules_of(model)
    )


def _ordinary(module: nn.Module, name: str) -> Any:
    """An attribute that is no parameter, buffer or module; None if there is none. A module is slow to miss one."""
    return vars(module).get(name, getattr(type(module), name, None))
