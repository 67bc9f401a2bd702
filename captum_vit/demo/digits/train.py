"""Train the demo classifier: ``python -m captum_vit.demo.digits.train --out FILE``.

Classification of whole scenes: no masks, no supervision of patches. It has two phases.

``--loss label``: a scene of several digits carries one of them as its label, drawn at random, as a photograph of
several things does in ImageNet. Cross-entropy is linear in the target, so its expectation over that draw is
cross-entropy against the uniform distribution over the digits present; that is the loss used here, the same
gradient on average with less noise.

``--start FIRST --loss digits``: all digits of a scene are named, each class by itself, as ImageNet's reassessed
labels name them.

Why the second phase. After the first alone the maps of many methods lie on the neighbour of the digit that they
should explain. They have a reason: leave the neighbour unwritten, and the digit's logit changes about as much as
if the digit itself were gone (``evaluation.effect``, no method involved; the model cards give the figures). One
label for several digits makes the logits speak of how many digits there are. So masks of digits are no ground
truth for that model. Naming all digits makes them one, nearly: that is the reason to keep the phase, though it was
the maps that led to it. The weights of both phases ship: ``demo_vit(objective="label")`` and ``"digits"``.

``--pooling mean|attention --start SECOND --loss digits``: a model whose classifier reads all patches goes on from
the one that reads the CLS token (:func:`begin`). All of it is trained; an attention pooling starts at random.

Scenes are drawn on the fly from the 1,297 training scans and never repeat. One thread is the default: a model
this small gains little from a second. The optimizer Muon comes with torch 2.9. It and ``--bf16`` compute in
bfloat16: on a CPU without instructions for it, ``--no-muon --no-bf16`` is faster.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from captum_vit.demo.digits.card import card
from captum_vit.demo.digits.evaluation import effect, evaluate
from captum_vit.demo.digits.model import POOLINGS, demo_vit
from captum_vit.demo.digits.scenes import digit_scenes
from captum_vit.demo.training import blend, card_beside, optimizers_of, resume_run, save_run, schedule, take_step
from captum_vit.demo.weights import load_weights, read_weights, save_weights

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


def targets_of(digits: Tensor) -> Tensor:
    """The uniform distribution over the digits present: (B, K) padded with -1 to (B, 10)."""
    counts = F.one_hot(digits + 1, 11).sum(1)[:, 1:].float()
    return counts / counts.sum(1, keepdim=True)


def one_label(logits: Tensor, digits: Tensor) -> Tensor:
    """Which of the classes is the label: softmax cross-entropy, expected over which digit that is."""
    return F.cross_entropy(logits, targets_of(digits))


def every_digit(logits: Tensor, digits: Tensor) -> Tensor:
    """Of each class, whether it is there: binary cross-entropy against all digits of the scene."""
    return F.binary_cross_entropy_with_logits(logits, targets_of(digits).gt(0).to(logits))


LOSSES = {"label": one_label, "digits": every_digit}


def begin(model: VisionTransformer, start: Path) -> None:
    """Weights of an earlier phase, whose classifier read the CLS token, as where this model begins.

    The norm behind the blocks becomes the norm behind a mean; an attention pooling keeps the weights that it has.
    """
    weights = read_weights(start)
    if model.global_pool == "avg":
        weights = {re.sub(r"^norm\.", "fc_norm.", name): tensor for name, tensor in weights.items()}
    new = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("attn_pool.")}
    model.load_state_dict(new | weights)


def train(args: argparse.Namespace) -> nn.Module:
    """Train from scratch, or on from ``args.checkpoint`` where that exists; returns the averaged model."""
    torch.manual_seed(args.seed)
    model, average = (demo_vit(pretrained=False, pooling=args.pooling) for _ in range(2))
    if args.start is not None:
        begin(model, args.start)
    average.load_state_dict(model.train().state_dict())
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = not args.bf16  # the fused kernel's bfloat16 backward is slow on CPUs
    optimizers = optimizers_of(model, "blocks", args.lr, args.lr_rest, args.decay, args.muon)
    parts = {"model": model, "average": average}
    start = resume_run(args.checkpoint, parts, optimizers)

    for step in (bar := trange(start, args.steps, initial=start, total=args.steps, mininterval=10)):
        most = min(3, 1 + step // args.grow)  # single digits first: it shortens the plateau at the start
        # A seed of its own for each step: a resumed run sees the scenes that an unbroken one would have seen.
        scenes = digit_scenes(args.batch, (1, most), "train", seed=args.seed * 10**8 + step)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            logits = model(scenes.images)
        loss = LOSSES[args.loss](logits.float(), scenes.digits)
        model.zero_grad()
        loss.backward()
        take_step(optimizers, schedule(step, args.steps))
        blend(average, model, weight=max(1 - args.ema, 1 / (step + 1)))
        if (step + 1) % args.every == 0:
            accuracy = evaluate(average, args.seed, args.test // 10, "train")
            bar.write(f"step {step + 1}: {accuracy} on training scans")
            save_run(args.checkpoint, step + 1, parts, optimizers)
    return average


def main() -> None:
    """Train, store, read the stored file back and print what it can do."""
    args = parser().parse_args()
    page = card_beside(args.out, args.overwrite)
    torch.set_num_threads(args.threads)
    save_weights(train(args), args.out)

    model = demo_vit(pretrained=False, pooling=args.pooling)
    load_weights(model, args.out)  # what is measured is what is shipped: after rounding to float16
    accuracy = evaluate(model, n=args.test)
    print(f"held-out scans, {accuracy.n} scenes each: {accuracy.single:.2%} of single digits named, ", end="")
    print(f"both of two named {accuracy.both:.2%}")
    command = "python -m captum_vit.demo.digits.train " + shlex.join(sys.argv[1:])
    page.write_text(card(model, args, accuracy, effect(model, n=args.test), command))


def parser() -> argparse.ArgumentParser:
    """The command line; its defaults are the recipe."""
    options = argparse.ArgumentParser("captum_vit.demo.digits.train", description=(__doc__ or "").split("\n")[0])
    add = options.add_argument
    add(
        "--out",
        type=Path,
        required=True,
        help="file to write, with its card beside it, a .md file of the same name",
    )
    add("--overwrite", action="store_true", help="replace --out where it exists")
    add("--steps", type=int, default=14_000)
    add("--batch", type=int, default=64)
    add("--seed", type=int, default=0)
    add("--grow", type=int, default=500, help="steps until scenes may hold one digit more")
    add("--lr", type=float, default=6e-3, help="peak learning rate of the blocks' matrices")
    add("--lr-rest", type=float, default=2e-3, help="peak learning rate of everything else")
    add("--decay", type=float, default=0.05, help="weight decay of the blocks' matrices")
    add("--loss", choices=LOSSES, default="label", help="what is asked: the label, or all digits")
    add("--pooling", choices=POOLINGS, default="cls", help="what the classifier reads")
    add("--start", type=Path, help="weights to begin with, of an earlier phase")
    add("--ema", type=float, default=0.999, help="decay of the running average of the weights")
    add("--bf16", action=argparse.BooleanOptionalAction, default=True, help="matrix products in bfloat16")
    add("--muon", action=argparse.BooleanOptionalAction, default=True, help="for the blocks' matrices; or AdamW")
    add("--threads", type=int, default=1)
    add("--test", type=int, default=5000, help="held-out scenes of each kind for the final figures")
    add("--every", type=int, default=1000, help="steps between checkpoints")
    add("--checkpoint", type=Path, help="keep the state of the run here; go on from it if it exists")
    return options


if __name__ == "__main__":
    main()
