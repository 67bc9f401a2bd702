"""Train the demo sound model: ``python -m captum_vit.demo.sounds.train --out FILE``.

All tones of a clip are to be named, each kind by itself. No masks and no supervision of patches: neither when nor how
high a tone sounds is a part of the target. The spectrograms of the training clips are computed once, since the feature
extractor takes longer for a clip than a step of the model; the clips are then seen again and again in random order.

``--start FIRST --shift 8``: a second phase, in which spectrograms are moved at random in time and pitch, since
the first phase learns the few training pitches too well. The card gives the command and the figures of both.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from tqdm import trange

from captum_vit.demo.evaluation import Accuracy, Effect
from captum_vit.demo.sounds.card import card
from captum_vit.demo.sounds.clips import tone_clips
from captum_vit.demo.sounds.evaluation import effect, evaluate
from captum_vit.demo.sounds.model import BANDS, FRAMES, KINDS, demo_ast
from captum_vit.demo.training import Recipe
from captum_vit.demo.weights import load_weights

if TYPE_CHECKING:
    from transformers import ASTForAudioClassification

PORTION = 256  # clips drawn at once: bounds the memory


def training_set(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Spectrograms (N, T, F) of training clips with one to three tones, and which kinds each has, (N, 6)."""
    drawn = [tone_clips(PORTION, (1, 3), "train", seed * 10**6 + i) for i in trange(-(-n // PORTION), desc="clips")]
    spectrograms = torch.cat([clips.inputs for clips in drawn])[:n]
    kinds = torch.cat([clips.kinds for clips in drawn])[:n]
    return spectrograms, F.one_hot(kinds + 1, len(KINDS) + 1).sum(1)[:, 1:].float()


def shifted(spectrograms: Tensor, most: int, generator: Generator) -> Tensor:
    """Each of (B, T, F) moved by up to ``most`` frames, round the end, and bands, of which the outermost repeats."""
    rows = torch.arange(len(spectrograms))[:, None, None]
    by = torch.randint(-most, most + 1, (2, len(spectrograms), 1), generator=generator)
    frames = (torch.arange(FRAMES) + by[0]) % FRAMES
    bands = (torch.arange(BANDS) + by[1]).clamp(0, BANDS - 1)
    return spectrograms[rows, frames[:, :, None], bands[:, None, :]]


def losses(model: ASTForAudioClassification, args: argparse.Namespace) -> Callable[[int], Tensor]:
    """The loss of each step, on clips drawn once for all."""
    if args.start is not None:
        load_weights(model, args.start)
    spectrograms, present = training_set(args.clips, args.seed)

    def loss_at(step: int) -> Tensor:
        generator = Generator().manual_seed(args.seed * 10**8 + step)
        rows = torch.randint(args.clips, (args.batch,), generator=generator)
        heard = shifted(spectrograms[rows], args.shift, generator)
        return F.binary_cross_entropy_with_logits(model(heard).logits, present[rows])

    return loss_at


def measure(model: ASTForAudioClassification, seed: int, n: int, split: str) -> tuple[Accuracy, Effect]:
    """All that the card says."""
    return evaluate(model, seed, n, split), effect(model, seed, n, split)


def options(parser: argparse.ArgumentParser) -> None:
    """Which phase, and on how many clips."""
    add = parser.add_argument
    add("--clips", type=int, default=4096, help="training clips")
    add("--start", type=Path, help="weights to begin with, of an earlier phase")
    add("--shift", type=int, default=0, help="frames and bands by which a spectrogram is moved at random, at most")


DEFAULTS = {
    "steps": 1500, "batch": 32, "warmup": 100, "lr": 1e-3, "lr_rest": 1e-3, "muon": False, "ema": 0.99,
    "test": 1000, "every": 250,
}  # fmt: skip
RECIPE = Recipe(
    script="captum_vit.demo.sounds.train",
    about="Train the demo sound model.",
    model=lambda args: demo_ast(pretrained=False),
    losses=losses,
    measure=measure,
    card=card,
    blocks="layers",
    defaults=DEFAULTS,
    options=options,
)

if __name__ == "__main__":
    RECIPE.main()
