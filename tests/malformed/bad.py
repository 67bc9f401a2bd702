"""A bad call, and what is asked of every one: an error of ours that says all three, before a model runs."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import timm
import torch
from captum.attr import Attribution
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

import captum_vit as cv
from tests.models import CASES, clip_model


class Bad(NamedTuple):
    """A call that must be refused."""

    what: str  # the call in words; no other has the same
    call: Callable[[], object]
    asks: bool = False  # whether a model must run before anyone can know
    slow: bool = False


def refused(bad: Bad) -> cv.CaptumVitError:
    """The error of a bad call."""
    ran: list[str] = []
    handle = register_module_forward_pre_hook(lambda module, args: ran.append(type(module).__name__))
    try:
        with pytest.raises(cv.CaptumVitError) as caught:
            bad.call()
    finally:
        handle.remove()
    error = caught.value
    assert error.wanted and error.got and error.hint
    shown = ran[:1] == [type(CONVNET).__name__]  # that a model is no transformer shows when it runs
    assert bad.asks or shown or not ran, f"{ran[0]} ran first"
    return error


def table(bads: Iterator[Bad]) -> list[Any]:
    """Parameters of a test, named by what is wrong."""
    return [pytest.param(bad, id=bad.what, marks=pytest.mark.slow if bad.slow else ()) for bad in bads]


def options(
    name: str,
    make: Callable[..., object],
    taken: list[str],
    values: dict[str, list[Any]],
    met: Counter[str] | None = None,
) -> Iterator[Bad]:
    """A function with one bad value for one of its options, for each option and value.

    Of an option that was met before, which one function checks for all, the next value in turn.
    """
    for option in taken:
        bad = values.get(option, [])
        if met is not None and bad:
            bad = [bad[met[option] % len(bad)]] if met[option] else bad
            met[option] += 1
        for value in bad:
            yield Bad(f"{name}({option}={said(value)})", lambda o=option, v=value: make(**{o: v}))


def said(value: Any) -> str:
    """A value as a part of a test's name."""
    if isinstance(value, torch.Tensor | np.ndarray):
        array = np.asarray(value)
        ends = f" from {array.min():.3g} to {array.max():.3g}" if array.size and array.dtype.kind in "iuf" else ""
        return f"{type(value).__name__} {tuple(value.shape)} of {value.dtype}{ends}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(said, value))})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {said(one)}" for key, one in value.items()) + "}"
    if isinstance(value, nn.Module | Attribution):
        return f"{type(value).__name__}()"
    return getattr(value, "__name__", None) or repr(value).partition(" at 0x")[0]


# -- what the calls are made on ------------------------------------------------------------------------------------

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
VIT = timm.create_model("vit_tiny_patch16_224", **SMALL).eval()  # says how many outputs it has
IMAGES = CASES["timm ViT"]().inputs
BERT = CASES["HF BERT"]().forward_func
IDS, MASK = CASES["HF BERT"]().inputs, CASES["HF BERT"]().additional_forward_args[0]
CLIP = clip_model()
for described in ((VIT, IMAGES), (BERT, IDS, MASK)):
    cv.spec_of(*described)  # the first pass finds the blocks


class ConvNet(nn.Sequential):
    """Convolutions one after the other: no attention, and no stream."""


CONVNET = ConvNet(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def spoilt(how: float) -> torch.Tensor:
    """Images with one number that is none."""
    images = IMAGES.clone()
    images[1, 0, 0, 0] = how
    return images


def in_training(model: nn.Module) -> nn.Module:
    """A copy that is being trained."""
    return copy.deepcopy(model).train()
