"""Train the demo Swin: ``python -m captum_vit.demo.digits.swin.train --out FILE``.

All digits of a scene are to be named, each class by itself, as for ``demo_vit()``. Its first stage starts from the
patches and blocks of ``demo_vit()`` (:mod:`captum_vit.demo.digits.swin.start`), and the logits of ``demo_vit()`` are a
second target (distillation): without them a network of windows this small would need many more steps.

No masks, no supervision of patches, and no map has a part in it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from tqdm import trange

from captum_vit.demo.digits.evaluation import effect, evaluate
from captum_vit.demo.digits.model import demo_vit
from captum_vit.demo.digits.scenes import digit_scenes
from captum_vit.demo.digits.swin.card import card
from captum_vit.demo.digits.swin.model import demo_swin
from captum_vit.demo.digits.swin.start import start_from_vit
from captum_vit.demo.digits.train import every_digit
from captum_vit.demo.training import blend, card_beside, optimizers_of, resume_run, save_run, schedule, take_step
from captum_vit.demo.weights import load_weights, save_weights

if TYPE_CHECKING:
    from timm.models.swin_transformer import SwinTransformer


def train(args: argparse.Namespace) -> SwinTransformer:
    """Train, or go on from ``args.checkpoint`` where that exists; returns the averaged model."""
    torch.manual_seed(args.seed)
    teacher, model, average = demo_vit(), demo_swin(False), demo_swin(False)
    start_from_vit(model, teacher)
    average.load_state_dict(model.train().state_dict())
    optimizers = optimizers_of(model, "blocks", args.lr, args.lr_rest, args.decay, muon=False)
    parts = {"model": model, "average": average}
    start = resume_run(args.checkpoint, parts, optimizers)

    for step in (bar := trange(start, args.steps, initial=start, total=args.steps, mininterval=10)):
        # A seed of its own for each step: a resumed run sees the scenes that an unbroken one would have seen.
        scenes = digit_scenes(args.batch, (1, 3), "train", seed=args.seed * 10**8 + step)
        with torch.no_grad():
            taught = teacher(scenes.images)
        logits = model(scenes.images)
        loss = every_digit(logits, scenes.digits) + args.distil * F.mse_loss(logits, taught)
        model.zero_grad()
        loss.backward()
        take_step(optimizers, schedule(step, args.steps, args.warmup))
        blend(average, model, weight=max(1 - args.ema, 1 / (step + 1)))
        if (step + 1) % args.every == 0:
            accuracy = evaluate(average, args.seed, args.test // 10, "train")
            bar.write(f"step {step + 1}: loss {loss.item():.4f}, {accuracy} on training scans")
            save_run(args.checkpoint, step + 1, parts, optimizers)
    return average


def main() -> None:
    """Train, store, read the stored file back and print what it can do."""
    args = parser().parse_args()
    page = card_beside(args.out, args.overwrite)
    torch.set_num_threads(args.threads)
    save_weights(train(args), args.out)

    model = demo_swin(pretrained=False)
    load_weights(model, args.out)  # what is measured is what is shipped: after rounding to float16
    accuracy, moved = evaluate(model, n=args.test), effect(model, n=args.test)
    print(f"on held-out scans: {accuracy}\n{moved}")
    command = "python -m captum_vit.demo.digits.swin.train " + shlex.join(sys.argv[1:])
    page.write_text(card(model, args, accuracy, moved, command))


def parser() -> argparse.ArgumentParser:
    """The command line; its defaults are the recipe."""
    options = argparse.ArgumentParser("captum_vit.demo.digits.swin.train", description=(__doc__ or "").split("\n")[0])
    add = options.add_argument
    add("--out", type=Path, required=True, help="file to write, with its card beside it, a .md file of the same name")
    add("--overwrite", action="store_true", help="replace --out where it exists")
    add("--steps", type=int, default=1400)
    add("--batch", type=int, default=32)
    add("--seed", type=int, default=0)
    add("--warmup", type=int, default=100, help="steps until the peak learning rate")
    add("--lr", type=float, default=2e-3, help="peak learning rate of the blocks' matrices")
    add("--lr-rest", type=float, default=2e-3, help="peak learning rate of everything else")
    add("--decay", type=float, default=0.05, help="weight decay of the blocks' matrices")
    add("--distil", type=float, default=0.02, help="weight of the squared distance from the teacher's logits")
    add("--ema", type=float, default=0.99, help="decay of the running average of the weights")
    add("--threads", type=int, default=1)
    add("--test", type=int, default=5000, help="held-out scenes of each kind for the final figures")
    add("--every", type=int, default=200, help="steps between checkpoints")
    add("--checkpoint", type=Path, help="keep the state of the run here; go on from it if it exists")
    return options


if __name__ == "__main__":
    main()
