"""Methods that start at a row, on digit models whose classifier reads the CLS token, a mean of the patches, or attends.

    python -m tests.benchmarks.heads [--pooling cls mean attention] [--scenes 50] [--fidelity 10] [--only NAME ...]

Of every two-digit scene both digits are explained. *pointing*: the maximum lies within 4 pixels of the digit; *AUC*: a
patch of the digit has more relevance than one of the other digit; *LIF - MIF*: fidelity, in logits, on the first
scenes; *between targets*: the correlation of the two maps of a scene, 1 where a method does not tell them apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from captum.attr import Attribution
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.demo import Scenes, demo_vit, digit_scenes
from captum_vit.demo.digits.model import POOLINGS
from quantus_metrics.metrics.fidelity import fidelity
from quantus_metrics.metrics.pointing import pointing_accuracy
from quantus_metrics.perturb import curves

METHODS = (
    "GenAtt", "VTranM", "PredicAtt", "TransAttr", "GradSAM", "PLUS(GenAtt)", "AttnGrad", "AttCAM", "RawAttention",
    "AttentionRollout", "DecompX", "CAT", "LayerCDAM",
)  # fmt: skip
TOLERANCE = 4  # pixels beside a stroke
COVERED = 0.08  # share of a patch's pixels that strokes must cover, for it to be one of the digit
BATCH = 50


def maps_of(method: Attribution, scenes: Scenes) -> Tensor:  # shape: (B, 2, h, w)
    """The maps of both digits of every scene."""
    x, target = scenes.images.repeat_interleave(2, 0), scenes.digits.flatten()
    batches = torch.arange(len(x)).split(BATCH)
    maps = [method.attribute(x[rows], target=target[rows]).squeeze(1) for rows in batches]
    return torch.cat(maps).unflatten(0, (-1, 2))


def between_digits(maps: Tensor, scenes: Scenes) -> float:
    """How often a patch of the explained digit has more relevance than one of the other digit: mean of the maps."""
    covered = F.avg_pool2d(scenes.masks.float(), 8) > COVERED
    own, other = covered & ~covered.flip(1), covered.flip(1) & ~covered
    areas = [
        roc_auc_score(mine[mine | others], relevance[mine | others])
        for relevance, mine, others in zip(maps.flatten(0, 1), own.flatten(0, 1), other.flatten(0, 1), strict=True)
    ]
    return sum(areas) / len(areas)


def between_targets(maps: Tensor) -> float:
    """The correlation of the two maps of a scene, the mean over scenes; 0 where a map is constant."""
    centred = maps.flatten(2).double()
    centred = centred - centred.mean(-1, keepdim=True)
    return F.cosine_similarity(centred[:, 0], centred[:, 1], dim=-1).mean().item()


def marks(model: nn.Module, make: Callable[[nn.Module], Attribution], scenes: Scenes, n_fidelity: int) -> list[float]:
    """A method's row of the table."""
    maps = maps_of(make(model), scenes)
    few, images = maps[:n_fidelity].flatten(0, 1), scenes.images[:n_fidelity].repeat_interleave(2, 0)
    found = curves(model, images, scenes.digits[:n_fidelity].flatten(), few, internal_batch_size=200)
    return [
        pointing_accuracy(maps.flatten(0, 1), scenes.masks.flatten(0, 1), TOLERANCE),
        between_digits(maps, scenes),
        fidelity(found["mif"], found["lif"], normalised=True).mean().item(),
        between_targets(maps),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pooling", nargs="*", choices=POOLINGS, default=list(POOLINGS))
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--fidelity", type=int, default=10, help="scenes for fidelity: 80 passes each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=METHODS, help="names of methods")
    options = parser.parse_args()

    torch.set_num_threads(1)
    scenes = digit_scenes(options.scenes, 2, seed=options.seed)
    for pooling in options.pooling:
        model = demo_vit(pooling=pooling)
        print(f"\npooling {pooling!r}: {2 * len(scenes)} maps, fidelity of the first {2 * options.fidelity}\n")
        print("| method | pointing | AUC | LIF - MIF | between targets |\n|---|--:|--:|--:|--:|", flush=True)
        for name in options.only:
            pointing, auc, gain, alike = marks(model, cv.METHODS[name], scenes, options.fidelity)
            print(f"| {name} | {pointing:.2f} | {auc:.3f} | {gain:.2f} | {alike:+.2f} |", flush=True)


if __name__ == "__main__":
    main()
