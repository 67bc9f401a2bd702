"""From whatever a model returns to one tensor of scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from captum_vit.errors import TraceError
from captum_vit.models.modules import modules_of

_NAMES = ("logits", "logits_per_image", "image_embeds", "text_embeds", "pooler_output", "last_hidden_state")


def scores_of(output: Any) -> Tensor:  # shape: (B, K)
    """The tensor that a target indexes: the output itself, its logits, its pooled embedding, or the one that it holds.

    Logits go by their name, in an object, a named tuple or a dictionary. A tuple or list without one must hold a
    single tensor of scores, beside losses, lists of hidden states and the like.

    Raises:
        TraceError: there is no such tensor, or there are several.
    """
    if isinstance(output, Tensor):
        return output
    for name in _NAMES:
        found = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    if isinstance(output, tuple | list):
        return _only_one(output)
    if hasattr(output, "start_logits"):
        hint = "captum_vit.AnswerSpan(model), with target=(position, 0) for the start."
        raise TraceError("Scores in one tensor.", "start and end logits of a span", hint)
    raise TraceError(
        f"A model that returns a tensor, or an object with one of {', '.join(_NAMES)}.",
        type(output).__name__,
        "captum_vit.Scalar(model, function) with a function that takes the tensor out.",
    )


def _only_one(output: Sequence[Any]) -> Tensor:
    """The one tensor of a tuple that can be scores: floating-point numbers for each sample."""
    held = {i: x for i, x in enumerate(output) if isinstance(x, Tensor) and x.is_floating_point() and x.dim() > 0}
    if len(held) == 1:
        return next(iter(held.values()))
    shapes = ", ".join(f"[{i}] of shape {tuple(x.shape)}" for i, x in held.items()) or "none"
    raise TraceError(
        f"Scores in one tensor; in a {type(output).__name__} of several they may be any of them.",
        f"{len(held)} tensors: {shapes}",
        f"captum_vit.Scalar(model, lambda output: output[{max(held, default=0)}]), with the place of the scores.",
    )


def held_by(output: Any) -> dict[str | int, Tensor]:
    """The floating-point tensors with a batch that an output holds, by their names or places."""
    if isinstance(output, Tensor):
        return {0: output}
    fields = getattr(output, "_asdict", None)  # of a named tuple
    if isinstance(output, Mapping):
        items: Iterable[tuple[Any, Any]] = output.items()
    elif isinstance(output, tuple | list):
        items = enumerate(output) if fields is None else fields().items()
    else:
        items = getattr(output, "__dict__", {}).items()
    return {key: x for key, x in items if isinstance(x, Tensor) and x.is_floating_point() and x.dim() > 0}


def tensor_of(output: Any, name: str | int | None) -> Tensor:
    """One of the tensors that an output holds, by its name or place; None for the output itself or its logits.

    Raises:
        TraceError: there is no such tensor; those that there are, are listed.
    """
    held = held_by(output)
    if name is not None and name in held:
        return held[name]
    if name is None and (len(held) == 1 or "logits" in held):
        return held.get("logits", next(iter(held.values())))
    there = ", ".join(f"{key!r} of shape {tuple(x.shape)}" for key, x in held.items()) or type(output).__name__
    wanted = "An output that is a tensor, or holds logits." if name is None else f"An output that holds {name!r}."
    raise TraceError(wanted, there, f"output={next(iter(held), 0)!r}, for instance.")


PROBABILITIES = {"single_label_classification": "softmax", "multi_label_classification": "sigmoid", "regression": None}
"""What makes probabilities of scores, by the ``problem_type`` of Hugging Face's configurations."""


def probability_of(model: nn.Module) -> str | None:
    """What makes probabilities of a model's scores, along the last dimension.

    ``"softmax"`` where one class is right; ``"sigmoid"`` where every output is a logit of its own (several labels);
    None where scores are no logits: target modules and regression. Target modules and Hugging Face's configurations
    have it in their ``problem_type``; of several, one inside the other, the outer one counts. Others have a softmax.
    """
    modules = modules_of(model)  # a module comes before those inside it
    classes = {cls for cls in {*map(type, modules)} if hasattr(cls, "raw_scores") or hasattr(cls, "config")}
    for module in modules:
        if type(module) not in classes and "raw_scores" not in module.__dict__ and "config" not in module.__dict__:
            continue
        raw = _ordinary(module, "raw_scores")
        declared = module if raw is not None else _ordinary(module, "config")
        problem = getattr(declared, "problem_type", None)
        if problem in PROBABILITIES:
            return PROBABILITIES[problem]
        if raw:
            return None
    return "softmax"


def probabilities(
    scores: Tensor,  # shape: (..., K)
    kind: str,
) -> Tensor:  # same shape; in half precision float32, where a sure class still has a slope
    """Scores through a ``"softmax"`` over the last dimension, or each through a ``"sigmoid"``."""
    wide = scores.float() if scores.element_size() < 4 else scores
    return wide.sigmoid() if kind == "sigmoid" else wide.softmax(-1)


def _ordinary(module: nn.Module, name: str) -> Any:
    """An attribute that is no parameter, buffer or module; None if there is none. A module is slow to miss one."""
    return vars(module).get(name, getattr(type(module), name, None))
