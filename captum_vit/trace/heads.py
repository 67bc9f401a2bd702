"""What each head adds to the residual stream: its columns of the output projection."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.spec import Transformer


def output_map(transformer: Transformer, layer: int, heads: int) -> Tensor:  # shape: (H, d, D)
    """What each head's vector becomes in the residual stream: its columns of the output projection, scaled."""
    block, spec = transformer.blocks[layer], transformer.spec
    extras = [path for path in spec.attn_extra if not _transparent(transformer.find(block, path))]
    if spec.out_proj is None or extras:
        raise UnsupportedModelError(
            "Heads that reach the residual stream through a linear projection alone.",
            f"{spec.family} with {', '.join(extras) or 'something else'} in between",
            "a method that needs no per-head vectors, such as GenAtt or DecompX.",
        )
    W = linear_map(transformer.part(block, spec.out_proj))  # shape: (H*d, D)
    scale = None if spec.attn_scale is None else transformer.part(block, spec.attn_scale)
    W = W if scale is None else W * scale.detach()
    return W.unflatten(0, (heads, -1))


def _transparent(module: object) -> bool:
    return module is None or isinstance(module, nn.Identity | nn.Dropout)


def linear_map(module: nn.Module) -> Tensor:  # shape: (in, out)
    """The matrix of a linear layer; of one that is not plain (adapted, quantised) by feeding it the identity."""
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return module.weight.detach().T
    width = int(module.in_features)  # type: ignore[arg-type]
    like = next(module.parameters(), torch.empty(0))  # a quantised layer has none, and stays on the CPU
    eye = torch.eye(width, dtype=like.dtype, device=like.device)
    return (module(eye) - module(torch.zeros_like(eye[:1]))).detach()


def linear_bias(module: nn.Module) -> Tensor | None:  # shape: (out,)
    """What a linear layer adds; a quantised one tells when asked."""
    bias = getattr(module, "bias", None)
    return bias() if callable(bias) else bias
