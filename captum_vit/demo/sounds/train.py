"""Train the demo sound model: ``python -m captum_vit.demo.sounds.train --out FILE``.

All tones of a clip are to be named, each kind by itself. No masks and no supervision of patches: neither when nor how
high a tone sounds is a part of the target. The spectrograms of the training clips are computed once, since the feature
extractor takes longer for a clip than a step of the model; the clips are then seen again and again in random order.

``--start FIRST --shift 8``: a second phase, in which spectrograms are moved at random in time and pitch, since
the first phase learns the few training pitches too well. The card gives the command and the figures of both.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from tqdm import trange

from captum_vit.demo.sounds.card import card
from captum_vit.demo.sounds.clips import tone_clips
from captum_vit.demo.sounds.evaluation import effect, evaluate
from captum_vit.demo.sounds.model import BANDS, FRAMES, KINDS, demo_ast
from captum_vit.demo.training import blend, card_beside, optimizers_of, resume_run, save_run, schedule, take_step
from captum_vit.demo.weights import load_weights, save_weights

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


def train(args: argparse.Namespace) -> ASTForAudioClassification:
    """Train, or go on from ``args.checkpoint`` where that exists; returns the averaged model."""
    torch.manual_seed(args.seed)
    model, average = demo_ast(False), demo_ast(False)
    average.load_state_dict(model.train().state_dict())
    optimizers = optimizers_of(model, "layers", args.lr, args.lr_rest, args.decay, muon=False)
    parts = {"model": model, "average": average}
    start = resume_run(args.checkpoint, parts, optimizers)
    if args.start is not None and start == 0:
        load_weights(model, args.start)
        load_weights(average, args.start)
    spectrograms, present = training_set(args.clips, args.seed)

    for step in (bar := trange(start, args.steps, initial=start, total=args.steps, mininterval=10)):
        # A seed of its own for each step: a resumed run sees the clips that an unbroken one would have seen.
        generator = Generator().manual_seed(args.seed * 10**8 + step)
        rows = torch.randint(args.clips, (args.batch,), generator=generator)
        heard = shifted(spectrograms[rows], args.shift, generator)
        loss = F.binary_cross_entropy_with_logits(model(heard).logits, present[rows])
        model.zero_grad()
        loss.backward()
        take_step(optimizers, schedule(step, args.steps, args.warmup))
        blend(average, model, weight=max(1 - args.ema, 1 / (step + 1)))
        if (step + 1) % args.every == 0:
            found = evaluate(average, args.seed - 1, args.test // 10, "train")
            bar.write(f"step {step + 1}: loss {loss.item():.4f}, {found} on other clips of training pitches")
            save_run(args.checkpoint, step + 1, parts, optimizers)
    return average


def main() -> None:
    """Train, store, read the stored file back and print what it can do."""
    args = parser().parse_args()
    page = card_beside(args.out, args.overwrite)
    torch.set_num_threads(args.threads)
    save_weights(train(args), args.out)

    model = demo_ast(pretrained=False)
    load_weights(model, args.out)  # what is measured is what is shipped: after rounding to float16
    accuracy, moved = evaluate(model, n=args.test), effect(model, n=args.test)
    print(f"on held-out pitches: {accuracy}\n{moved}")
    page.write_text(
        card(model, args, accuracy, moved, "python -m captum_vit.demo.sounds.train " + shlex.join(sys.argv[1:]))
    )


def parser() -> argparse.ArgumentParser:
    """The command line; its defaults are the recipe."""
    options = argparse.ArgumentParser("captum_vit.demo.sounds.train", description=(__doc__ or "").split("\n")[0])
    add = options.add_argument
    add("--out", type=Path, required=True, help="file to write, with its card beside it, a .md file of the same name")
    add("--overwrite", action="store_true", help="replace --out where it exists")
    add("--clips", type=int, default=4096, help="training clips")
    add("--start", type=Path, help="weights to begin with, of an earlier phase")
    add("--shift", type=int, default=0, help="frames and bands by which a spectrogram is moved at random, at most")
    add("--steps", type=int, default=1500)
    add("--batch", type=int, default=32)
    add("--seed", type=int, default=0)
    add("--warmup", type=int, default=100, help="steps until the peak learning rate")
    add("--lr", type=float, default=1e-3, help="peak learning rate of the blocks' matrices")
    add("--lr-rest", type=float, default=1e-3, help="peak learning rate of everything else")
    add("--decay", type=float, default=0.05, help="weight decay of the blocks' matrices")
    add("--ema", type=float, default=0.99, help="decay of the running average of the weights")
    add("--threads", type=int, default=1)
    add("--test", type=int, default=1000, help="held-out clips of each kind for the final figures")
    add("--every", type=int, default=250, help="steps between checkpoints")
    add("--checkpoint", type=Path, help="keep the state of the run here; go on from it if it exists")
    return options


if __name__ == "__main__":
    main()
