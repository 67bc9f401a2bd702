"""The transformer inside a model that reads these inputs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_vit.models.registry import spec_of
from captum_vit.models.transformer import Transformer


def transformer_of(model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...]) -> Transformer:
    """The transformer that reads these inputs. Call it inside :func:`captum_vit.trace.state.undisturbed`.

    Raises:
        UnsupportedModelError: no transformer, or more than one, was found; it says what was found.
    """
    return spec_of(model)
