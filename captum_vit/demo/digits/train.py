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
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_vit.demo.digits.card import card
from captum_vit.demo.digits.evaluation import effect, evaluate
from captum_vit.demo.digits.model import POOLINGS, demo_vit
from captum_vit.demo.digits.scenes import digit_scenes
from captum_vit.demo.evaluation import Accuracy, Effect
from captum_vit.demo.training import Recipe
from captum_vit.demo.weights import read_weights

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


def untrained(args: argparse.Namespace) -> VisionTransformer:
    """What is trained, of random weights."""
    return demo_vit(pretrained=False, pooling=args.pooling)


def losses(model: VisionTransformer, args: argparse.Namespace) -> Callable[[int], Tensor]:
    """The loss of each step, on scenes of its own."""
    if args.start is not None:
        begin(model, args.start)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = not args.bf16  # the fused kernel's bfloat16 backward is slow on CPUs

    def loss_at(step: int) -> Tensor:
        most = min(3, 1 + step // args.grow)  # single digits first: it shortens the plateau at the start
        scenes = digit_scenes(args.batch, (1, most), "train", seed=args.seed * 10**8 + step)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            logits = model(scenes.images)
        return LOSSES[args.loss](logits.float(), scenes.digits)

    return loss_at


def measure(model: nn.Module, seed: int, n: int, split: str) -> tuple[Accuracy, Effect]:
    """All that the card says."""
    return evaluate(model, seed, n, split), effect(model, seed, n, split)


def options(parser: argparse.ArgumentParser) -> None:
    """Which phase, and how."""
    add = parser.add_argument
    add("--grow", type=int, default=500, help="steps until scenes may hold one digit more")
    add("--loss", choices=LOSSES, default="label", help="what is asked: the label, or all digits")
    add("--pooling", choices=POOLINGS, default="cls", help="what the classifier reads")
    add("--start", type=Path, help="weights to begin with, of an earlier phase")
    add("--bf16", action=argparse.BooleanOptionalAction, default=True, help="matrix products in bfloat16")


DEFAULTS = {
    "steps": 14_000, "batch": 64, "lr": 6e-3, "lr_rest": 2e-3, "ema": 0.999, "test": 5000,
    "every": 1000,
}  # fmt: skip
RECIPE = Recipe(
    script="captum_vit.demo.digits.train",
    about="Train the demo classifier.",
    model=untrained,
    losses=losses,
    measure=measure,
    card=card,
    blocks="blocks",
    defaults=DEFAULTS,
    options=options,
)

if __name__ == "__main__":
    RECIPE.main()
