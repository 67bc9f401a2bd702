"""Train the demo vision-language model: ``python -m captum_vit.demo.scene_questions.train --out FILE``.

Each step draws scenes of a low and a high digit and asks both questions about each. The loss is that of the next
token, at the answer and the full stop behind it. No masks, no supervision of patches.

The vision tower starts from the demo classifier (``demo_vit()``), and its first four layers stay as they are; the
projector and the language model start from random weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from captum_vit.demo.digits.model import NAMES, demo_vit
from captum_vit.demo.evaluation import Effect
from captum_vit.demo.scene_questions.card import card
from captum_vit.demo.scene_questions.evaluation import Answers, Follows, evaluate, follows, moved, prompt_ids
from captum_vit.demo.scene_questions.model import demo_vlm, tokens_read
from captum_vit.demo.scene_questions.questions import SIDES, digit_questions, question
from captum_vit.demo.scene_questions.start import KEPT, start_from_digits
from captum_vit.demo.training import Recipe

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration


def losses(model: LlavaForConditionalGeneration, args: argparse.Namespace) -> Callable[[int], Tensor]:
    """The loss of each step, on scenes of its own."""
    tower = model.model.vision_tower
    start_from_digits(tower, demo_vit())
    for part in (tower.embeddings, *tower.layers[:KEPT]):
        part.requires_grad_(False)

    def loss_at(step: int) -> Tensor:
        found = digit_questions(args.batch, "train", args.seed * 10**8 + step)
        answers = found.digits.sort(1).values.flatten().tolist()  # of each scene the low digit, then the high one
        ids = prompt_ids([f"{question(SIDES[i % 2])} {NAMES[digit]}." for i, digit in enumerate(answers)])
        tokens = tokens_read(model, ids.view(args.batch, 2, -1), found.images).flatten(0, 1)
        logits = model(inputs_embeds=tokens, use_cache=False, logits_to_keep=3).logits[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1), ids[:, -2:].flatten())

    return loss_at


def measure(model: LlavaForConditionalGeneration, seed: int, n: int, split: str) -> tuple[Answers, Follows, Effect]:
    """All that the card says."""
    return evaluate(model, seed, n, split), follows(model, seed, n, split), moved(model, seed, n, split)


DEFAULTS = {
    "steps": 300, "batch": 32, "warmup": 30, "lr": 2e-3, "lr_rest": 1e-3, "muon": False, "decay": 0.01, "ema": 0.97,
    "test": 1000, "every": 50,
}  # fmt: skip
RECIPE = Recipe(
    script="captum_vit.demo.scene_questions.train",
    about="Train the demo vision-language model.",
    model=lambda args: demo_vlm(pretrained=False),
    losses=losses,
    measure=measure,
    card=card,
    blocks="language_model.layers",
    defaults=DEFAULTS,
)

if __name__ == "__main__":
    RECIPE.main()
