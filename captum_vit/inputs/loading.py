"""Loading a model by name: ``timm:NAME`` or ``hf:PATH``, weights read only in ways that cannot run code."""

from __future__ import annotations

import pickle
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError, OptionError, UnsupportedModelError
from captum_vit.extras import extra

_HEADS = {
    "AutoModelForImageClassification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForImageTextToText": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
}
"""The classes that load a model with a head, and what transformers calls the list of their architectures."""

_NESTS = ("state_dict", "model", "model_state_dict")  # where training scripts put the weights


def load_model(name: str, *, pretrained: bool = True, checkpoint: str | Path | None = None) -> nn.Module:
    """A model in eval mode.

    Args:
        name: ``timm:vit_tiny_patch16_224`` (any name that ``timm.create_model`` takes), or ``hf:`` and
            a folder or a repository of the Hugging Face hub.
        pretrained: timm only: fetch the pretrained weights; False starts from random ones.
        checkpoint: timm only: a file of weights instead, safetensors or what ``torch.load`` reads with
            ``weights_only=True``. The number of classes is taken from it.

    Raises:
        InputError: an unknown name, or weights that cannot be had or do not fit.
        UnsupportedModelError: a Hugging Face model without a classification head, or a timm model that is no
            transformer and whose weights cannot be had.
        MissingLibraryError: timm or transformers is not installed.
    """
    library, _, rest = str(name).partition(":")
    if not rest or library not in ("timm", "hf"):
        raise InputError("A model as timm:NAME or hf:PATH.", repr(name), "timm:vit_tiny_patch16_224")
    if library == "hf" and checkpoint is not None:
        wanted = "hf:PATH alone, since its folder holds the weights."
        raise InputError(wanted, f"also {str(checkpoint)!r}", "leaving the checkpoint out, or timm:NAME with it.")
    model = _timm(rest, pretrained, checkpoint) if library == "timm" else _hugging_face(rest)
    return model.eval()


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights in a file, without running any code from it.

    Raises:
        InputError: no such file, or not a file of plain weights.
    """
    if not isinstance(path, str | PathLike) or not Path(path).is_file():
        raise InputError("A file of weights.", f"{str(path)!r}, which is no file", "the path of a .safetensors file.")
    path = Path(path)
    try:
        safe = path.suffix == ".safetensors"
        found = _safetensors(path) if safe else torch.load(path, "cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            "A file of only weights: safetensors, or what `torch.load(weights_only=True)` reads.",
            f"{str(path)!r} ({_reason(error)})",
            "saving `model.state_dict()` with safetensors.torch.save_file.",
        ) from error
    for nest in _NESTS:
        found = found[nest] if isinstance(found, dict) and isinstance(found.get(nest), dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        hint = "saving `model.state_dict()`, not the model or a whole training state."
        raise InputError("A state dict: tensors by name.", f"{str(path)!r}, {type(found).__name__}", hint)
    return {name.removeprefix("module."): value for name, value in found.items()}


def device_named(name: str) -> torch.device:
    """A device that this machine has.

    Raises:
        OptionError: no such name, no such device, or one that computes nothing.
    """
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise OptionError("A device that this machine has.", f"{name!r} ({_reason(error)})", "cpu") from error
    if device.type == "meta":
        raise OptionError("A device that computes.", repr(name), "cpu")
    return device


def _safetensors(path: Path) -> dict[str, Tensor]:
    with extra("timm"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"not safetensors: {error}") from error


def _timm(name: str, pretrained: bool, checkpoint: str | Path | None) -> nn.Module:
    with extra("timm"):
        import timm

    local = name.startswith(("hf-hub:", "hf_hub:", "local-dir:"))
    if not local and not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=4, cutoff=0.5)
        raise InputError("The name of a timm model.", repr(name), ", ".join(near) or "timm.list_models()")
    weights = None if checkpoint is None else load_weights(checkpoint)
    try:
        model = timm.create_model(name, pretrained=pretrained and weights is None)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"The pretrained weights of {name!r}.",
            _reason(error),
            "a network, --checkpoint FILE with weights that you have, or another tag after the dot.",
        ) from error
    if weights is not None:
        _fill(model, weights, checkpoint)
    return model


def _fill(model: Any, weights: dict[str, Tensor], path: str | Path | None) -> None:
    """Weights into the model, with a head of their size."""
    head = weights.get(f"{model.pretrained_cfg.get('classifier')}.weight")
    if head is not None and len(head) != model.num_classes:
        model.reset_classifier(len(head))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = "\n".join(str(error).splitlines()[1:5])
        hint = "the timm name under which these weights were trained."
        raise InputError("Weights of this very architecture.", f"{str(path)!r}:\n{lines}", hint) from error


def _hugging_face(path: str) -> nn.Module:
    with extra("hf"):
        import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(path)
        architecture = (config.architectures or ["none"])[0]
        head = next((head for head, names in _HEADS.items() if architecture in _architectures(names)), None)
        if head is None:
            raise UnsupportedModelError(
                "A classifier of pictures or texts, or a language model.",
                f"{path!r}, whose architecture is {architecture}",
                "loading it in Python and explaining captum_vit.ConceptSimilarity(model, ...), for instance.",
            )
        return getattr(transformers, head).from_pretrained(path)
    except (OSError, ValueError) as error:
        raise InputError(
            "A folder or repository with a Hugging Face model.",
            f"{path!r} ({_reason(error)})",
            "a folder written by `model.save_pretrained`, or a network.",
        ) from error


def _architectures(names: str) -> set[str]:
    """The classes of a list of transformers, in which a family may have several."""
    from transformers.models.auto import modeling_auto

    listed = (one if isinstance(one, tuple | list) else (one,) for one in getattr(modeling_auto, names).values())
    return {name for group in listed for name in group}


def _reason(error: Exception) -> str:
    """The first line of a foreign error."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
