"""What a demo model can do, and what its outputs are about: measured, no method of explanation involved."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

TEST_SEED = 2**31  # the cards' held-out inputs; another seed draws others


class Accuracy(NamedTuple):
    """Held-out accuracies, each over ``n`` inputs."""

    single: float  # inputs that show one thing: the largest logit names it
    both: float  # inputs that show two: the two largest logits name both
    n: int


class Effect(NamedTuple):
    """What an output loses when a part of its input is taken out or written anew, over ``n`` inputs."""

    own: float  # when it is the part that the output is about
    other: float  # when it is another one; negative where the output rises
    other_share: float  # mean |other| by mean |own|; 0: only its own part moves the output
    n: int


def accuracy(shown: Callable[[int], tuple[Tensor, Tensor]]) -> Accuracy:
    """How often things are named, from the logits (B, C) and the classes (B, K) of inputs that show K things."""
    single, both = (all_named(*shown(k)) for k in (1, 2))
    return Accuracy(share(single), share(both), len(both))


def effect_of(whole: Tensor, without_own: Tensor, without_other: Tensor) -> Effect:
    """Whose change moves an output, from its values (B,) on the three inputs.

    That a map should lie on the part that the output is about is true of a model only as far as the other part does
    not move the output.
    """
    own, other = whole - without_own, whole - without_other
    return Effect(own.mean().item(), other.mean().item(), (other.abs().mean() / own.abs().mean()).item(), len(whole))


def all_named(logits: Tensor, classes: Tensor) -> Tensor:  # shape: (B,), bool
    """Of inputs that show K things, (B, K): whether the K largest logits name them."""
    return (logits.topk(classes.shape[1]).indices.sort(1).values == classes.sort(1).values).all(1)


def share(right: Tensor) -> float:
    """The share of what is true."""
    return right.float().mean().item()
