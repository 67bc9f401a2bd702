"""A norm is known by what it does to tokens, not by its name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

import captum_vit as cv
from captum_vit.trace.record.frozen_norm import frozen_norm

D = 9


class Standardised(nn.Module):
    """LayerNorm under another name, with its parts named otherwise, and an epsilon of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(D)), nn.Parameter(torch.zeros(D))

    def forward(self, x: Tensor) -> Tensor:
        y = x - x.mean(-1, keepdim=True)
        return self.gain * y / (y.pow(2).mean(-1, keepdim=True).sqrt() + 0.01) + self.shift


class Lengths(nn.Module):
    """Divides by the Euclidean length, without a weight."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=-1)


class Bent(nn.Module):
    """A norm that is none: single entries are bent."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(0.7 * x)


class Half(nn.Module):
    """Normalises the first channels alone."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([nn.functional.layer_norm(x[..., :4], (4,)), x[..., 4:]], -1)


def of_width(norm: type[nn.Module]) -> Callable[[], nn.Module]:
    return lambda: norm(D)


NORMS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "Llama": (of_width(LlamaRMSNorm), False),
    "Gemma": (of_width(GemmaRMSNorm), False),  # its weight is one less
    "T5": (of_width(T5LayerNorm), False),
    "standardised": (Standardised, True),
    "lengths": (Lengths, False),
    "identity": (nn.Identity, False),
}


def drawn(norm: nn.Module) -> tuple[nn.Module, Tensor]:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(D, generator=generator))
    return norm.double().eval(), torch.randn(2, 5, D, generator=generator, dtype=torch.float64) + 0.3


@pytest.mark.parametrize("name", NORMS)
def test_parts_of_a_token_sum_to_what_the_norm_makes_of_it(name: str) -> None:
    make, centred = NORMS[name]
    norm, x = drawn(make())
    frozen = frozen_norm(norm, x)
    assert frozen.centred == centred
    parts = torch.randn(3, *x.shape, dtype=x.dtype)
    parts = torch.cat([parts, (x - parts.sum(0))[None]])
    whole = (frozen.unscaled(parts) * frozen.scale.unsqueeze(-1)).sum(0)
    bias = norm.shift if isinstance(norm, Standardised) else 0
    torch.testing.assert_close(whole + bias, norm(x), rtol=1e-6, atol=1e-6)  # Llama computes in float32


@pytest.mark.parametrize("make", [Bent, Half, lambda: nn.GroupNorm(3, D)], ids=["bent", "half", "groups"])
def test_what_is_no_norm_is_refused_by_name(make: Callable[[], nn.Module]) -> None:
    norm, x = drawn(make())
    with pytest.raises(cv.UnsupportedModelError, match=type(norm).__name__):
        frozen_norm(norm, x)


def test_a_hook_changes_the_norm_that_is_found() -> None:
    norm, x = drawn(nn.LayerNorm(D))
    plain = frozen_norm(norm, x)
    norm.register_forward_hook(lambda module, args, output: 2 * output)
    doubled = frozen_norm(norm, x)
    rows = doubled.unscaled(x) * doubled.scale.unsqueeze(-1)
    torch.testing.assert_close(rows, 2 * plain.unscaled(x) * plain.scale.unsqueeze(-1))
