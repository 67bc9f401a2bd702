"""What a model calls its classes, and the class that a name stands for."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from torch import nn

from captum_vit.errors import TargetError
from captum_vit.models.library import host_of


def class_names(model: nn.Module, n: int | None = None) -> dict[int, str] | None:
    """Names of the model's outputs, or None where it gives none.

    With ``n``, how many outputs there are: names of another number belong to a head that is not the last one.

    A target module's ``names`` come first; then Hugging Face's ``id2label`` (unless generic) and timm's
    ``label_names``; models with as many outputs as ImageNet has classes are taken to name these.

    Example:
        >>> class_names(timm.create_model("vit_tiny_patch16_224"))[281]  # doctest: +SKIP
        'tabby, tabby cat'
    """
    names = _names(model)
    return None if names is None or n not in (None, len(names)) else names


def _names(model: nn.Module) -> dict[int, str] | None:
    own = getattr(model, "names", None)
    if isinstance(own, list | tuple) and all(isinstance(name, str) for name in own):
        return dict(enumerate(own))
    host = host_of(model)
    if host is None or getattr(model, "raw_scores", False):
        return None
    library, module = host
    if library == "transformers":
        return _hugging_face(module)
    if library == "timm":
        return _timm(module)
    return _torchvision(module) if library == "torchvision" else None


def target_index(model: nn.Module, name: str, n: int | None = None) -> int:
    """The output that a name stands for, in any case; of ``n`` outputs, if that is known.

    The whole name or one of its synonyms (``"tabby"`` of ``"tabby, tabby cat"``) counts first; then a part of
    it, if it fits one class only. A number that is no name stands for itself.

    Raises:
        TargetError: unknown (the nearest names are listed) or ambiguous (the classes are listed).
    """
    names = class_names(model, n)
    wanted = name.strip().casefold()
    known = {index: label.casefold() for index, label in (names or {}).items()}
    part = wanted and not wanted.isdecimal()
    for found in (
        [index for index, label in known.items() if wanted == label],
        [index for index, label in known.items() if wanted in label.split(", ")],
        [index for index, label in known.items() if part and wanted in label],
    ):
        if len(found) == 1:
            return found[0]
        if found and names is not None:
            listed = ", ".join(f"{index} ({names[index]})" for index in found[:8])
            raise TargetError("A name that fits one class.", f"{name!r}, which fits {listed}", "the number.")
    if wanted.isdecimal():
        return int(wanted)
    raise _unknown(name, wanted, names, type(model).__name__)


def _unknown(name: str, wanted: str, names: dict[int, str] | None, model: str) -> TargetError:
    if names is None:
        return TargetError(f"The number of a class, since {model} does not name its classes.", repr(name), "target=0.")
    words = {word.casefold(): word for label in names.values() for word in label.split(", ")}
    near = [words[word] for word in get_close_matches(wanted, words, n=5, cutoff=0.6)]
    some = near or list(names.values())[:5]
    return TargetError(f"One of the {len(names)} class names.", repr(name), ", ".join(map(repr, some)))


def _hugging_face(model: Any) -> dict[int, str] | None:
    labels = {int(index): str(label) for index, label in model.config.id2label.items()}
    generic = all(label == f"LABEL_{index}" for index, label in labels.items())
    return None if generic or not hasattr(model, "num_labels") else labels


def _timm(model: Any) -> dict[int, str] | None:
    from timm.data import ImageNetInfo, infer_imagenet_subset

    own = model.pretrained_cfg.get("label_names")
    if own and len(own) == model.num_classes:
        return dict(enumerate(own))
    subset = infer_imagenet_subset(model) if model.num_classes else None
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return {index: info.index_to_description(index) for index in range(info.num_classes())}


def _torchvision(model: Any) -> dict[int, str] | None:
    from torchvision.models import ViT_B_16_Weights

    names = ViT_B_16_Weights.DEFAULT.meta["categories"]
    outputs = getattr(model.heads[-1], "out_features", None)
    return dict(enumerate(names)) if outputs == len(names) else None
