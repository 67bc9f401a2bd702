"""The tables of tiny models, and how a model is entered: built from its configuration, once, by its name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CLASSES = 5


class Case(NamedTuple):
    """What a Captum call needs: a batch of three, and a target for each."""

    forward_func: nn.Module
    inputs: Tensor
    additional_forward_args: tuple[Any, ...] = ()
    target: Any = (1, 4, 2)


CASES: dict[str, Callable[[], Case]] = {}
FURTHER: dict[str, Callable[[], Case]] = {}  # no family of their own, but another way of calling one
TRAINED: dict[str, Callable[[], Case]] = {}  # nor are these random; they sit the exam of methods
TEXTS: list[str] = []  # names of those that read words


def case(name: str, table: dict[str, Callable[[], Case]] = CASES) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Enter a builder into the table; its model and inputs depend on the name alone."""

    def enter(build: Callable[[], Case]) -> Callable[[], Case]:
        @cache
        def built() -> Case:
            with torch.random.fork_rng(), torch.inference_mode(False):  # whoever asks first
                torch.manual_seed(sum(map(ord, name)))
                made = build()
            return made._replace(target=list(made.target))

        table[name] = built
        return built

    return enter


def redrawn(model: nn.Module) -> nn.Module:
    """Every parameter anew: matrices that keep lengths, biases around 0, norms and LayerScale around 1."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            leaf = name.rpartition(".")[2]
            if p.dim() == 0:  # the temperature of CLIP
                continue
            if p.dim() == 1:
                p.normal_(std=0.3).add_(0 if "bias" in leaf else 1)
            elif p.shape[0] == 1:  # positions, CLS token, registers
                p.normal_(std=0.7)
            else:
                p.normal_(std=1.5 * (p.shape[0] / p.numel()) ** 0.5)
    return model.eval()


def image(height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(3, 3, height, width)
