"""Activations in every form: torch's own as it lists them, and as people write them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import activation

from tests.references.models import reference_vit

Activation = Callable[[Tensor], Tensor]
MIXING = {"MultiheadAttention", "Softmin", "Softmax", "Softmax2d", "LogSoftmax"}  # no functions of single entries
OPTIONS = {"Threshold": (0.1, 0.7)}
OWN: dict[str, nn.Module] = {
    name: getattr(nn, name)(*OPTIONS.get(name, ())).double().eval() for name in activation.__all__ if name not in MIXING
}
ROOT = math.sqrt(2 / math.pi)

# By hand or in place -> the module that computes the same.
WRITTEN: dict[str, tuple[Activation, nn.Module]] = {
    "gelu_new": (
        lambda x: 0.5 * x * (1.0 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 3.0)))),
        nn.GELU("tanh"),
    ),
    "gelu_fast": (lambda x: 0.5 * x * (1 + torch.tanh(x * ROOT * (1 + 0.044715 * x * x))), nn.GELU("tanh")),
    "GELU by erf": (lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), nn.GELU()),
    "SiLU by sigmoid": (lambda x: x.sigmoid() * x, nn.SiLU()),
    "SiLU by exp": (lambda x: x / (1 + torch.exp(-x)), nn.SiLU()),
    "SiLU, mul_": (lambda x: x.mul_(x.sigmoid()), nn.SiLU()),
    "SiLU in place": (nn.SiLU(inplace=True), nn.SiLU()),
    "Mish": (lambda x: x * torch.tanh(F.softplus(x)), nn.Mish()),
    "Softsign": (lambda x: x / (1 + x.abs()), nn.Softsign()),
    "Hardswish": (lambda x: x * F.relu6(x + 3) / 6, nn.Hardswish()),
    "ELU by where": (lambda x: torch.where(x > 0, x, 1.0 * (torch.exp(x) - 1)), nn.ELU()),
    "ELU by ReLU": (lambda x: F.relu(x) - F.relu(1 - x.exp()), nn.ELU()),
    "ReLU by clamp": (lambda x: x.clamp(min=0), nn.ReLU()),
    "ReLU by maximum": (lambda x: torch.maximum(x, torch.zeros_like(x)), nn.ReLU()),
    "ReLU by a comparison": (lambda x: x * (x > 0), nn.ReLU()),
    "relu_": (torch.relu_, nn.ReLU()),
    "LeakyReLU": (lambda x: torch.max(x, 0.01 * x), nn.LeakyReLU()),
    "Sigmoid": (lambda x: 1 / (1 + torch.exp(-x)), nn.Sigmoid()),
    "Softplus": (lambda x: torch.log1p(x.exp()), nn.Softplus()),
    "Threshold": (lambda x: torch.where(x > 0.1, x, 0.7), OWN["Threshold"]),
    "Tanhshrink": (lambda x: x - torch.tanh(x), nn.Tanhshrink()),
}
ALONE: dict[str, Activation] = {  # which no module of torch computes, or where a number added first is a bias
    "Hardsigmoid in place": lambda x: x.add_(3.0).clamp_(0.0, 6.0).div_(6.0),
    "QuickGELU": lambda x: x * torch.sigmoid(1.702 * x),
    "ReLU squared": lambda x: torch.square(F.relu(x)),
    "ReLU times ReLU": lambda x: F.relu(x) * F.relu(x),
    "Laplace": lambda x: 0.5 * (1.0 + torch.erf((x - 0.707107).div(0.282095 * math.sqrt(2.0)))),
    "sine": torch.sin,
    "SELU with its dropout": lambda x: F.alpha_dropout(F.selu(x), 0.1),
    "GELU with dropout in place": lambda x: F.dropout(F.gelu(x), 0.1, False, True),
    "GELU, the input added in place": lambda x: F.gelu(x).add_(x),
}
EVERY: dict[str, Activation] = OWN | {name: pair[0] for name, pair in WRITTEN.items()} | ALONE


class Act(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Activation) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Gated(nn.Module):
    """A feed-forward with two streams, multiplied."""

    def __init__(self, gate: Callable[[Tensor, Tensor], Tensor], width: int = 24) -> None:
        super().__init__()
        self.fc1, self.fc2, self.gate = nn.Linear(width, 2 * width), nn.Linear(width, width), gate

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.gate(*self.fc1(x).chunk(2, -1)))


def vit_with(function: Activation) -> nn.Module:
    """The reference model with another activation."""
    model = reference_vit()
    for block in model.blocks:
        block.mlp.act = Act(function)
        if isinstance(function, nn.GLU):
            block.mlp.fc2 = _drawn(nn.Linear(block.mlp.fc2.in_features // 2, block.mlp.fc2.out_features))
    return model.eval()


def gated_vit(gate: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    """The reference model with gated feed-forwards."""
    model = reference_vit()
    for block in model.blocks:
        block.mlp = _drawn(Gated(gate))
    return model.eval()


def _drawn(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.double().parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return module
