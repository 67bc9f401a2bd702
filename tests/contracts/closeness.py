"""How near two maps must be. No bound is to be loosened to pass.

Two maps that are computed in another order are compared in double precision (``Pair.exact``), where a sum that cancels
to a thousandth of its terms is still right to twelve digits, on any processor. What float32 may change is measured:
:func:`float32_changes`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

TOLERANCE = {  # relative to the largest value
    "same computation": 0.0,
    "float64": 1e-12,  # another batch, another order of sums
    "float64, divided by sums near zero": 1e-9,  # such a quotient shows up to a million times what is rounded away
    "float32 around float64": 1e-4,  # relevance is propagated in float64 in a float32 model too, whose weights it feels
}
BF16_CORRELATION = 0.9
SEEN = 1e-3  # the smallest error, relative to the largest value, that every comparison finds


def assert_close(found: Tensor, wanted: Tensor, why: str) -> None:
    """The same shape and precision, and no value farther apart than the table allows."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    if why.startswith("float64"):
        assert wanted.dtype == torch.float64, f"a map of {wanted.dtype}: keep the model's precision"
    error = (found - wanted).abs().max() / wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny)
    assert error <= TOLERANCE[why], f"{why}: off by {error:.2e} of the largest value"


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten().double(), b.flatten().double()]))[0, 1])


# -- in single precision -----------------------------------------------------------------------------------------

ROUNDING = 2.0**-24  # of a float32, relative to its value
TIMES = 32  # a result of float32 is rounded in each of its steps, where a move rounds every weight once
LEAST = 16  # roundings of the largest value, for maps that weights hardly move
MOVES = 2


def assert_close_in_float32(
    found: Tensor, wanted: Tensor, explained: Callable[[nn.Module, Tensor], Tensor], model: nn.Module, inputs: Tensor
) -> None:
    """A map in float32, sample by sample no farther from the map in float64 than rounding can bring it.

    Args:
        found: the map of the model in float32.
        wanted: the map in float64.
        explained: the method, as a function of a model and its inputs.
        model: in float64; so are inputs that are no token ids.
    """
    assert found.dtype == torch.float32 and wanted.dtype == torch.float64
    bound = float32_changes(wanted, explained, model, inputs)
    error = (found.double() - wanted).flatten(1).abs().amax(1)
    assert (error <= bound).all(), f"off by {error.tolist()}, where rounding allows {bound.tolist()}"


def float32_changes(
    wanted: Tensor, explained: Callable[[nn.Module, Tensor], Tensor], model: nn.Module, inputs: Tensor
) -> Tensor:
    """How far float32 may move each sample's map; shape: (B,).

    Every weight and every pixel is moved by one rounding, at random, in float64. What the map then moves by follows
    from what is added and subtracted on the way to it, and from nothing else: no kernel, no processor.
    """
    generator = torch.Generator().manual_seed(MOVES)
    largest = wanted.flatten(1).abs().amax(1)
    moved = LEAST / TIMES * ROUNDING * largest
    for near in moves_of(model):
        pixels = rounded(inputs, generator) if inputs.is_floating_point() else inputs
        moved = torch.maximum(moved, (explained(near, pixels) - wanted).flatten(1).abs().amax(1))
    assert (TIMES * moved < SEEN * largest).all(), "so near to nothing but rounding that a wrong map would pass"
    return TIMES * moved


_MOVED: WeakKeyDictionary[nn.Module, tuple[list[int], list[nn.Module]]] = WeakKeyDictionary()


def moves_of(model: nn.Module) -> list[nn.Module]:
    """Models whose weights are near those of one, made once for all methods, and again after a change in place."""
    versions = [parameter._version for parameter in model.parameters()]
    known, moves = _MOVED.get(model, ([], []))
    if known != versions or not moves:
        moves = [moved(model, torch.Generator().manual_seed(seed)) for seed in range(MOVES)]
        _MOVED[model] = versions, moves
    return moves


def moved(model: nn.Module, generator: torch.Generator) -> nn.Module:
    near = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in near.parameters():
            parameter.copy_(rounded(parameter, generator))
    return near


def rounded(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each number moved by one rounding to float32, more or less."""
    return x * (1 + ROUNDING * torch.randn(x.shape, generator=generator, dtype=x.dtype))
