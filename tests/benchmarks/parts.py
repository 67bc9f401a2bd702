"""What methods say of parts whose importance is known by intervention, by the protocol of FunnyBirds.

    python -m tests.benchmarks.parts [--scenes 200] [--seed 1]

On held-out scenes of `part_scenes` and `demo_parts`. The first rows are maps that the interventions themselves give;
the last is the negative of the first. Then IDSDS and FFidelity of maps of digits, on `demo_vit` and on the same trained
with patches missing.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.demo import demo_parts, demo_vit, digit_scenes, part_scenes
from captum_vit.errors import CaptumVitError
from quantus_metrics.parts import PartTests, part_tests_of

METHODS = (
    "DecompX", "PLUS(DecompX)", "ConservativeLRP", "GenAtt", "VTranM", "LayerCDAM", "TokenGradCAM", "TokenAblation",
    "IntegratedGradients", "InputXGradient", "Saliency", "AttentionRollout", "RandomAttribution",
)  # fmt: skip
TESTS = (
    "single deletion", "target sensitivity", "controlled data", "preservation", "deletion", "distractibility",
)  # fmt: skip
SUMS = ("completeness", "correctness", "contrastivity", "score")


def row(name: str, found: PartTests) -> str:
    """A line of the table."""
    figures = [*map(found.mean, TESTS), *(getattr(found, each) for each in SUMS)]
    return f"| {name} | {' | '.join(f'{figure:.2f}' for figure in figures)} |"


def parts(n: int, seed: int) -> None:
    """Print the table of the protocol."""
    model, scenes = demo_parts(), part_scenes(n, seed=seed)
    effects = qm.part_effects(model, scenes)
    print(f"{int(effects.right.sum())} of {n} figures are named; {effects.background_independence:.3f} of the objects")
    print("beside them do not count (background independence).\n")
    print(f"| map | {' | '.join((*TESTS, *SUMS))} |\n|---|{'--:|' * (len(TESTS) + len(SUMS))}")
    print(row("what each costs alone", part_tests_of(effects.map, effects)))
    print(row("Shapley values of the parts", part_tests_of(partial(effects.map, of="shapley"), effects)))
    for name in METHODS:
        try:
            print(row(name, qm.part_tests(qm.explain_func(cv.METHODS[name]), model, effects)), flush=True)
        except CaptumVitError as error:
            print(f"| {name} | refused: {str(error).splitlines()[0]} |{' |' * 9}", flush=True)
    print(row("inverted", part_tests_of(lambda classes: -effects.map(classes), effects)))


def removal(n: int, seed: int) -> None:
    """Print IDSDS and FFidelity of maps of digits, on the plain model and on the one trained with patches missing."""
    scenes = digit_scenes(n, 1, seed=seed)
    x, y = scenes.images.numpy(), scenes.digits[:, 0].numpy()
    metrics = {
        "IDSDS": qm.IDSDS(),
        "FFid⁺ - FFid⁻": qm.FFidelity(
            score="difference", reads="probability", beta=0.5, n_draws=8, sizes=(0.2, 0.5, 0.8)
        ),
    }
    models = {"plain": demo_vit(), "trained so": demo_vit(dropped_tokens=True)}
    heads = [f"{metric}, {model}" for metric in metrics for model in models]
    print(f"\n| map | {' | '.join(heads)} |\n|---|{'--:|' * len(heads)}")
    for name in METHODS:
        explain = qm.explain_func(cv.METHODS[name])
        figures = [
            f"{np.nanmean(metric(model, x, y, explain_func=explain)):.3f}"
            for metric in metrics.values()
            for model in models.values()
        ]
        print(f"| {name} | {' | '.join(figures)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200, help="scenes of parts")
    parser.add_argument("--digits", type=int, default=30, help="scenes of digits; 0 leaves that table out")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)  # some methods draw from the global generator
    parts(options.scenes, options.seed)
    if options.digits:
        removal(options.digits, options.seed)


if __name__ == "__main__":
    main()
