"""A norm with its deviation as a constant: what it does to vectors, found by calling it, whatever its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import MISFITS, CaptumVitError, UnsupportedModelError
from captum_vit.trace.record.written_by_heads import untouched
from captum_vit.trace.run.state import widened

PLAIN = {nn.LayerNorm.forward, nn.RMSNorm.forward}


@dataclass(frozen=True)
class FrozenNorm:
    """A norm whose deviation is a constant: linear in the parts of its input, up to its bias."""

    weight: Tensor | None  # shape: (D,)
    centred: bool
    scale: Tensor  # shape: (B, N), one over the deviation of every token

    def unscaled(self, parts: Tensor) -> Tensor:  # (..., D) -> the same
        """What it makes of parts, before the division that depends on the token they are parts of."""
        parts = parts - parts.mean(-1, keepdim=True) if self.centred else parts
        return parts if self.weight is None else parts * self.weight.to(parts)


def frozen_norm(
    module: nn.Module,
    x: Tensor,  # shape: (B, N, D), what it was given
) -> FrozenNorm:
    """A norm as it acted on these tokens.

    Raises:
        UnsupportedModelError: its output is not a number for each token, times a weight for each channel, times the
            tokens, or their deviations from their mean; plus a bias.
    """
    if type(module).forward not in PLAIN or not untouched(module):
        try:
            return _tried(module, x)
        except CaptumVitError:
            raise
        except MISFITS as error:
            raise _no_norm(module, f"which refuses other tokens with {type(error).__name__}: {error}") from error
    weights: Any = module
    centred = isinstance(module, nn.LayerNorm)
    eps = torch.finfo(x.dtype).eps if weights.eps is None else weights.eps
    wide = widened(x)
    variance = wide.var(-1, correction=0) if centred else wide.pow(2).mean(-1)
    weight = None if weights.weight is None else weights.weight.detach()
    return FrozenNorm(weight, centred, (variance + eps).rsqrt())


@torch.no_grad()
def _tried(module: nn.Module, x: Tensor) -> FrozenNorm:
    """The weight from two opposite vectors, up to a number that the scale of every token then holds too.

    The scale is what fits the token's own output, which it must explain, channel by channel.
    """
    v = torch.ones_like(x[:1])
    v[..., ::2] = -1

    def run(tokens: Tensor) -> Tensor:
        return widened(module(tokens))

    plus, minus, moved = run(v), run(-v), run(v + 1)
    eps = max(torch.finfo(x.dtype).eps, torch.finfo(torch.float32).eps)  # many compute in float32, whatever comes
    rounding = 4 * eps**0.5
    centred = bool((moved - plus).abs().max() <= rounding * plus.abs().max())
    bias = ((plus + minus) / 2)[0, 0]
    weight = ((plus - minus) / 2)[0, 0] / FrozenNorm(None, centred, v).unscaled(widened(v))[0, 0]
    y, normal = run(x), FrozenNorm(weight, centred, v).unscaled(widened(x))
    scale = ((y - bias) * normal).sum(-1) / normal.pow(2).sum(-1).clamp_min(torch.finfo(y.dtype).tiny)
    if not (normal * scale.unsqueeze(-1) + bias - y).abs().max() <= rounding * y.abs().max():
        raise _no_norm(module, "whose output is no such product, as it is called, with its hooks")
    return FrozenNorm(weight, centred, scale)


def _no_norm(module: nn.Module, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        "A norm to follow vectors through: that divides a token, or its deviations from its mean, by a number, times "
        "a weight, plus a bias.",
        f"{type(module).__name__}, {why}",
        "a method that follows no vectors through norms, such as AttIN, or include_ln2=False.",
    )
