"""The weights that ship with the package: float16 safetensors, and what they were made with."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from torch import Tensor, nn

from captum_vit.extras import extra


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill the model from a float16 safetensors file; its parameters stay float32."""
    model.load_state_dict(read_weights(path))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a float16 safetensors file by name, as float32."""
    with extra("demo"):
        from safetensors.torch import load_file

    if not path.exists():
        raise FileNotFoundError(
            f"Expected demo weights at {path}. They ship with the package; the model cards beside the weights "
            "in captum_vit/demo give the commands that made them."
        )
    return {name: tensor.float() for name, tensor in load_file(path).items()}


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's parameters as float16 safetensors."""
    with extra("demo"):
        from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, path)


def versions(*packages: str) -> str:
    """Python and these packages with their versions, for a model card."""
    parts = [f"{name} {version(name)}" for name in packages]
    return ", ".join([f"Python {platform.python_version()}", *parts])
