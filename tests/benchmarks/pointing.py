"""Where maps point: at the digit or tone asked for, at its neighbour, or elsewhere; and from which layer.

    python -m tests.benchmarks.pointing [--weights digits_vit label_vit] [--scenes 200] [--seed 1]

For all weights of `demo_vit` and `demo_swin`, on scenes of two digits: one trained with one label for each scene, one
that names all digits, two whose classifiers read the patches, and a Swin. For `demo_ast`, on clips of two tones: a map
should lie on the tone in time and in pitch. Before the methods it prints what is true of the model itself: what a
logit loses when the digit or tone, or the other one, is left out. Where the other one matters as much, a map on the
neighbour is no mistake of the method. A method that refuses the model is printed with its reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from captum.attr import Attribution
from scipy.stats import binomtest
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.demo import demo_ast, demo_swin, demo_vit, digit_scenes, tone_clips
from captum_vit.demo.digits.evaluation import effect
from captum_vit.demo.digits.model import SHIPPED
from captum_vit.demo.evaluation import Effect
from captum_vit.demo.sounds.evaluation import effect as tone_effect
from captum_vit.errors import CaptumVitError
from quantus_metrics.metrics.pointing import pointing_hits

TOLERANCE = 4  # pixels, or frames and bands, beside what is asked for
BATCH = 50


@dataclass(frozen=True)
class Pairs:
    """Inputs with two things each, and where these are."""

    inputs: Tensor  # shape: (B, ...)
    classes: Tensor  # shape: (B, 2)
    masks: Tensor  # shape: (B, 2, H, W)


def scenes(n: int, seed: int) -> Pairs:
    """Held-out scenes of two digits."""
    drawn = digit_scenes(n, 2, seed=seed)
    return Pairs(drawn.images, drawn.digits, drawn.masks)


def clips(n: int, seed: int) -> Pairs:
    """Clips of two tones of held-out pitches."""
    drawn = tone_clips(n, 2, seed=seed)
    return Pairs(drawn.inputs, drawn.kinds, drawn.masks)


class Task(NamedTuple):
    """Weights, and what they are held to."""

    model: Callable[[], nn.Module]
    pairs: Callable[[int, int], Pairs] = scenes
    effect: Callable[[nn.Module, int, int], Effect] = effect


TASKS = {
    **{name: Task(partial(demo_vit, objective=of, pooling=pooling)) for (of, pooling), name in SHIPPED.items()},
    "digits_swin": Task(demo_swin),
    "ast": Task(demo_ast, clips, tone_effect),
}


def candidates(model: nn.Module, inputs: Tensor) -> Iterator[tuple[str, Callable[[], Attribution]]]:
    """Every method by name, and CDAM at every block that is found."""
    yield from ((name, partial(make, model)) for name, make in cv.METHODS.items())
    try:
        blocks = len(cv.spec_of(model, inputs[:1]).blocks)
    except CaptumVitError:
        return  # the methods print why
    for block in range(blocks):
        yield f"LayerCDAM, block {block}", partial(cv.LayerCDAM, model, block)


def hits(method: Attribution, pairs: Pairs) -> tuple[Tensor, Tensor]:  # shapes: (2 B,), bool
    """Whether the map of each digit or tone points at it, and at the other one."""
    x, target = pairs.inputs.repeat_interleave(2, 0), pairs.classes.flatten()
    batches = torch.arange(len(x)).split(BATCH)
    maps = torch.cat([method.attribute(x[rows], target=target[rows]) for rows in batches])
    own, other = pairs.masks.flatten(0, 1), pairs.masks.flip(1).flatten(0, 1)
    return pointing_hits(maps, own, TOLERANCE), pointing_hits(maps, other, TOLERANCE)


def row(name: str, right: Tensor, wrong: Tensor) -> str:
    """A line of the table: shares of maps."""
    low, high = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    shares = [each.double().mean().item() for each in (right, wrong, ~right & ~wrong)]
    return f"| {name} | {shares[0]:.3f} | {low:.3f} - {high:.3f} | {shares[1]:.3f} | {shares[2]:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--scenes", type=int, default=200, help="scenes, or clips")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="names of methods; all by default")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)  # some methods draw from the global generator
    for weights in options.weights:
        task = TASKS[weights]
        model, pairs = task.model(), task.pairs(options.scenes, options.seed)
        own, other, share, n = task.effect(model, options.seed, options.scenes)
        print(f"\n{weights}: over {n} inputs a logit loses {own:+.2f} without what it names, ", end="")
        print(f"{other:+.2f} without the other one ({share:.0%} as much)\n")
        print("| method | on it | 95 % interval | on its neighbour | elsewhere |\n|---|--:|--:|--:|--:|")
        for name, make in candidates(model, pairs.inputs):
            if options.only and name not in options.only:
                continue
            try:
                line = row(name, *hits(make(), pairs))
            except CaptumVitError as error:
                line = f"| {name} | refused: {str(error).splitlines()[0]} | | | |"
            print(line, flush=True)


if __name__ == "__main__":
    main()
