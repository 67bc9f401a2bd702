"""Something that a model accepts and that means nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError
from captum_vit.models.modules import named_tower


def example(model: nn.Module) -> Tensor:  # shape: (1, C, H, W), or (1, T)
    """Noise of the size of a model's pictures, or a short row of token ids.

    Raises:
        InputError: the model embeds neither patches by a convolution nor words.
    """
    tower = named_tower(model) or model
    modules = list(tower.modules())
    convolution = next((m for m in modules if isinstance(m, nn.Conv2d)), None)
    vocabulary = next((m for m in modules if isinstance(m, nn.Embedding)), None)
    if convolution is None:
        if vocabulary is None:
            got = f"{type(tower).__name__}, which embeds neither patches by a convolution nor words"
            raise InputError("An example to run.", got, "doctor(model, inputs).")
        return _words(modules, vocabulary.num_embeddings).to(vocabulary.weight.device)
    places = [place for module in modules for place in (module, getattr(module, "config", None))]
    sizes = (getattr(place, name, None) for place in places for name in ("img_size", "image_size"))
    size = next((s for s in sizes if s), 224)
    height, width = (size, size) if isinstance(size, int) else size
    noise = torch.randn(1, convolution.in_channels, height, width, generator=torch.Generator().manual_seed(0))
    return noise.to(convolution.weight)


def _words(modules: list[nn.Module], vocabulary: int) -> Tensor:  # shape: (1, T)
    """A short row of token ids, or of the length that a tower insists on; it ends where CLIP's texts end."""
    length = next((n for m in modules if isinstance(n := getattr(m, "context_length", None), int)), 8)
    ids = torch.arange(2, 2 + length) % vocabulary
    end = next(
        (n for m in modules if isinstance(n := getattr(getattr(m, "config", None), "eos_token_id", None), int)), 0
    )
    if ids.max() < end < vocabulary:
        ids[-1] = end
    return ids[None]
