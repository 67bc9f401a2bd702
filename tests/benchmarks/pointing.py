"""Where maps point on two-digit scenes: at the digit asked for, at its neighbour, or elsewhere; and from which layer.

    python -m tests.benchmarks.pointing [--weights digits_vit label_vit] [--scenes 200] [--seed 1]

For all weights that ship: one trained with one label for each scene, one that names all digits, and two whose
classifiers read the patches. Before the methods it prints what is true of the model itself: what a digit's logit
loses when the digit, or the other one, is left unwritten. Where the other one matters as much, a map on the
neighbour is no mistake of the method.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from captum.attr import Attribution
from scipy.stats import binomtest
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.demo import Scenes, demo_vit, digit_scenes
from captum_vit.demo.digits.evaluation import effect
from captum_vit.demo.digits.model import SHIPPED
from quantus_metrics.metrics.pointing import pointing_hits

TOLERANCE = 4  # pixels beside a stroke
BATCH = 50


def candidates(model: nn.Module) -> Iterator[tuple[str, Attribution]]:
    """Every method by name, and CDAM at every block."""
    yield from ((name, make(model)) for name, make in cv.METHODS.items())
    for block in range(len(cv.spec_of(model).blocks)):
        yield f"LayerCDAM, block {block}", cv.LayerCDAM(model, block)


def hits(method: Attribution, scenes: Scenes) -> tuple[Tensor, Tensor]:  # shapes: (2 B,), bool
    """Whether the map of each digit points at this digit, and at the other one."""
    x, target = scenes.images.repeat_interleave(2, 0), scenes.digits.flatten()
    batches = torch.arange(len(x)).split(BATCH)
    maps = torch.cat([method.attribute(x[rows], target=target[rows]) for rows in batches])
    own, other = scenes.masks.flatten(0, 1), scenes.masks.flip(1).flatten(0, 1)
    return pointing_hits(maps, own, TOLERANCE), pointing_hits(maps, other, TOLERANCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", choices=SHIPPED.values(), default=list(SHIPPED.values()))
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="names of methods; all by default")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)  # some methods draw from the global generator
    scenes = digit_scenes(options.scenes, 2, seed=options.seed)
    for (objective, pooling), weights in SHIPPED.items():
        if weights not in options.weights:
            continue
        model = demo_vit(objective=objective, pooling=pooling)
        own, other, share, n = effect(model, options.seed, options.scenes)
        print(f"\n{weights}: over {n} scenes a digit's logit loses {own:+.2f} without the digit, ", end="")
        print(f"{other:+.2f} without the other one ({share:.0%} as much)\n")
        print("| method | on the digit | 95 % interval | on its neighbour | elsewhere |\n|---|--:|--:|--:|--:|")
        for name, method in candidates(model):
            if options.only and name not in options.only:
                continue
            right, wrong = hits(method, scenes)
            low, high = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
            shares = [each.double().mean().item() for each in (right, wrong, ~right & ~wrong)]
            print(
                f"| {name} | {shares[0]:.3f} | {low:.3f} - {high:.3f} | {shares[1]:.3f} | {shares[2]:.3f} |", flush=True
            )


if __name__ == "__main__":
    main()
