"""Which library a model comes from, and what can be read off it there without running it."""

from __future__ import annotations

from typing import Any

from torch import nn

_SIGNS = {"timm": "pretrained_cfg", "transformers": "config", "torchvision": "heads", "open_clip": "visual"}
"""A library's models are the modules of its classes that have this attribute."""


def host_of(model: nn.Module) -> tuple[str, Any] | None:
    """The name of a library, and its own model inside whatever wraps it; None for other models."""
    for module in model.modules():
        roots = {cls.__module__.partition(".")[0] for cls in type(module).__mro__}
        for library, sign in _SIGNS.items():
            if library in roots and hasattr(module, sign):
                return library, module
    return None


def n_outputs(model: nn.Module) -> int | None:
    """How many classes a classifier scores, read off its head; None where that is not certain.

    What a module around a classifier gives, or a head of another make, is known only by running it.
    """
    inner = getattr(model, "model", None)
    if getattr(model, "raw_scores", True) is False and isinstance(inner, nn.Module):
        return n_outputs(inner)  # the model is a wrapper that hands on the scores as they are
    host = host_of(model)
    if host is None or host[1] is not model:
        return None
    library, module = host
    if library == "timm":
        head = module.get_classifier() if hasattr(module, "get_classifier") else None  # none where features are read
    elif library == "torchvision":
        head = module.heads[-1]
    else:
        head = getattr(module, "classifier", None)
        if getattr(head, "out_features", None) != getattr(module, "num_labels", None):
            return None  # it scores something else than classes, such as one of several choices
    return head.out_features if isinstance(head, nn.Linear) else None


def continues_texts(model: nn.Module) -> bool | None:
    """Whether a Hugging Face model writes each token from those in front of it; None for the models of others."""
    host = host_of(model)
    if host is None or host[0] != "transformers" or not hasattr(host[1], "can_generate"):
        return None
    return bool(host[1].can_generate()) and not getattr(host[1].config, "is_encoder_decoder", False)


def text_config(model: nn.Module) -> Any:
    """The configuration of a Hugging Face model's text side; None for another model."""
    host = host_of(model)
    config = host[1].config if host is not None and host[0] == "transformers" else None
    return getattr(config, "text_config", config)


def placeholders_of(model: nn.Module) -> set[int]:
    """The ids in whose places a vision-language model of Hugging Face puts pictures, films or sounds."""
    host = host_of(model)
    config = host[1].config if host is not None and host[0] == "transformers" else None
    kinds = ("image", "video", "audio")
    found = [getattr(config, f"{kind}_token_{end}", None) for kind in kinds for end in ("id", "index")]
    return {one for one in found if isinstance(one, int)}


def is_text_model(model: nn.Module) -> bool:
    """Whether the model, or the tower that a target module explains, reads token ids and no pictures."""
    host = host_of(getattr(model, "tower", model))
    if host is None or host[0] != "transformers":
        return False
    config = host[1].config
    return getattr(host[1], "main_input_name", "") == "input_ids" and not hasattr(config, "vision_config")
