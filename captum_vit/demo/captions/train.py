"""Train the demo image-text model: ``python -m captum_vit.demo.captions.train --out FILE``.

Scenes against captions, each pair by itself (the sigmoid loss of SigLIP): is this caption true of this scene? A
caption names one digit of its scene, or several, or all; the others of a batch are true of it too wherever the scene
shows all that they name, and count as true. So no caption is taken for false that is not.

The vision tower starts from the demo classifier (``demo_vit()``), the text tower from random weights.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from captum_vit.demo.captions.card import card
from captum_vit.demo.captions.evaluation import effect, retrieval
from captum_vit.demo.captions.model import demo_clip, demo_clip_tokenizer
from captum_vit.demo.captions.sentences import caption, is_true_of, some_of
from captum_vit.demo.captions.start import start_from_digits
from captum_vit.demo.digits.model import demo_vit
from captum_vit.demo.digits.scenes import digit_scenes
from captum_vit.demo.training import blend, card_beside, optimizers_of, resume_run, save_run, schedule, take_step
from captum_vit.demo.weights import load_weights, save_weights

if TYPE_CHECKING:
    from transformers import CLIPModel


class Pairing(nn.Module):
    """The model with the threshold that the loss needs and retrieval does not."""

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.model = model
        self.bias = nn.Parameter(torch.tensor(0.0))

    def forward(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:  # shape: (B, N)
        said = self.model(pixel_values=images, input_ids=ids, attention_mask=mask)
        return said.logits_per_image.float() + self.bias


def train(args: argparse.Namespace) -> CLIPModel:
    """Train, or go on from ``args.checkpoint`` where that exists; returns the averaged model."""
    torch.manual_seed(args.seed)
    pairing, average, words = Pairing(demo_clip(False)), demo_clip(False), demo_clip_tokenizer()
    start_from_digits(pairing.model.vision_model, demo_vit())
    average.load_state_dict(pairing.model.state_dict())
    pairing.model.train().set_attn_implementation("eager")  # the fused kernel's bfloat16 backward is slow on CPUs
    optimizers = optimizers_of(pairing, "layers", args.lr, args.lr_rest, args.decay)
    parts = {"pairing": pairing, "average": average}
    start = resume_run(args.checkpoint, parts, optimizers)

    for step in (bar := trange(start, args.steps, initial=start, total=args.steps, mininterval=10)):
        # A seed of its own for each step: a resumed run sees what an unbroken one would have seen.
        seed = args.seed * 10**8 + step
        scenes, chance = digit_scenes(args.batch, (1, 3), "train", seed), random.Random(seed)
        said = some_of(scenes.digits, chance)
        texts = words([caption(digits, chance) for digits in said], return_tensors="pt", padding=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            logits = pairing(scenes.images, texts["input_ids"], texts["attention_mask"])
        loss = F.binary_cross_entropy_with_logits(logits, is_true_of(said, scenes.digits).float())
        pairing.zero_grad()
        loss.backward()
        take_step(optimizers, schedule(step, args.steps))
        blend(average, pairing.model, weight=max(1 - args.ema, 1 / (step + 1)))
        if (step + 1) % args.every == 0:
            found = retrieval(average, args.seed, args.test // 10, "train")
            bar.write(f"step {step + 1}: loss {loss.item():.4f}, {found} on training scans")
            bar.write(f"  {effect(average, args.seed, args.test // 10, 'train')}")
            bar.write(f"  scale {pairing.model.logit_scale.exp().item():.2f}, bias {pairing.bias.item():.2f}")
            save_run(args.checkpoint, step + 1, parts, optimizers)
    return average


def main() -> None:
    """Train, store, read the stored file back and print what it can do."""
    args = parser().parse_args()
    page = card_beside(args.out, args.overwrite)
    torch.set_num_threads(args.threads)
    save_weights(train(args), args.out)

    model = demo_clip(pretrained=False)
    load_weights(model, args.out)  # what is measured is what is shipped: after rounding to float16
    found, moved = retrieval(model, n=args.test), effect(model, n=args.test)
    print(f"on held-out scans: {found}\n{moved}")
    page.write_text(
        card(model, args, found, moved, "python -m captum_vit.demo.captions.train " + shlex.join(sys.argv[1:]))
    )


def parser() -> argparse.ArgumentParser:
    """The command line; its defaults are the recipe."""
    options = argparse.ArgumentParser("captum_vit.demo.captions.train", description=(__doc__ or "").split("\n")[0])
    add = options.add_argument
    add("--out", type=Path, required=True, help="file to write, with its card beside it, a .md file of the same name")
    add("--overwrite", action="store_true", help="replace --out where it exists")
    add("--steps", type=int, default=1200)
    add("--batch", type=int, default=64)
    add("--seed", type=int, default=0)
    add("--lr", type=float, default=2e-3, help="peak learning rate of Muon (the blocks' matrices)")
    add("--lr-rest", type=float, default=1e-3, help="peak learning rate of AdamW (everything else)")
    add("--decay", type=float, default=0.05, help="weight decay of the blocks' matrices")
    add("--ema", type=float, default=0.995, help="decay of the running average of the weights")
    add("--bf16", action=argparse.BooleanOptionalAction, default=True, help="matrix products in bfloat16")
    add("--threads", type=int, default=1)
    add("--test", type=int, default=5000, help="held-out scenes of each kind for the final figures")
    add("--every", type=int, default=500, help="steps between checkpoints")
    add("--checkpoint", type=Path, help="keep the state of the run here; go on from it if it exists")
    return options


if __name__ == "__main__":
    main()
