"""What ``captum-vit train-head`` trains, as a TOML file and as a frozen dataclass."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt
from pydantic.dataclasses import dataclass

from quantus_metrics.benchmark.toml_spec import STRICT, DataSpec, checked, hash_of, read_toml

Positive = Annotated[StrictInt, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=STRICT)
class HeadSpec:
    """A model, data, and a recipe.

    Keys:
        title: of the card.
        load: a model of timm, ``timm:NAME``; it gets a new linear head with an output for each class.
        data: the training pictures, as in a benchmark's spec.
        held_out: other pictures of the same classes, or a share of each class that is kept from training.
        checkpoint: a file of weights to begin with, instead of timm's.
        pretrained: False begins with random weights.
        trained: ``"head"`` trains only the head, on features of the frozen backbone; ``"all"`` trains everything.
        epochs: over all training pictures.
        batch_size: pictures of a step.
        optimizer: ``"adam"``, ``"adamw"``, or ``"sgd"`` with momentum 0.9.
        rate: the learning rate, at its peak.
        weight_decay: of all parameters.
        schedule: of the rate: ``"constant"``, or ``"cosine"`` down to zero.
        warmup: epochs in which the rate rises.
        augment: ``"crop"`` is torchvision's random resized crop and flip by their defaults; ``"randaugment"`` adds its
            RandAugment. Each epoch draws anew. ``"none"`` takes the model's own preprocessing.
        label_smoothing: of cross-entropy.
        seed: of the head, the order, the split and the augmentation.
        source: where the recipe comes from.
        note: what else there is to say.
    """

    title: str
    load: str
    data: DataSpec
    held_out: DataSpec | Share
    checkpoint: str | None = None
    pretrained: StrictBool = True
    trained: Literal["head", "all"] = "head"
    epochs: Positive = 10
    batch_size: Positive = 128
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3e-4
    weight_decay: Amount = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: Amount = 0.0
    augment: Literal["none", "crop", "randaugment"] = "none"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: Annotated[StrictInt, Field(ge=0)] = 0
    source: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not self.load.startswith("timm:"):
            raise ValueError(f"load: {self.load!r}; a model of timm is wanted, timm:NAME, whose head can be replaced")

    @property
    def hash(self) -> str:
        """What the weights depend on, in twelve digits."""
        return hash_of(self)


def read_head_spec(path: Path) -> HeadSpec:
    """The spec in a TOML file.

    Raises:
        InputError: no such file, or not TOML.
        OptionError: a key that is missing, unknown, or has a value that is not allowed.
    """
    tables = read_toml(path, "examples/heads")
    return checked(HeadSpec, {"data": DataSpec, "held_out": DataSpec}, tables, str(path))
