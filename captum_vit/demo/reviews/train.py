"""Train the demo classifier of reviews: ``python -m captum_vit.demo.reviews.train --out FILE``.

Classification of whole reviews: no rationale is supervised. Reviews are drawn on the fly from the training sentences
and hardly ever repeat. Some of them hold no opinion, and of these the model should not know: both labels are to have
the same probability (``--silent``). One thread is the default. The optimizer Muon comes with torch 2.9.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_vit.demo.reviews.card import card
from captum_vit.demo.reviews.evaluation import Accuracy, Effect, effect, evaluate
from captum_vit.demo.reviews.model import demo_bert, demo_bert_tokenizer
from captum_vit.demo.reviews.reviews import generated_reviews
from captum_vit.demo.reviews.word_pieces import Read, read
from captum_vit.demo.training import Recipe

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification


def losses(model: BertForSequenceClassification, args: argparse.Namespace) -> Callable[[int], Tensor]:
    """The loss of each step, on reviews of its own."""

    def loss_at(step: int) -> Tensor:
        first = step < args.grow  # plain opinions first: it shortens the plateau at the start
        silent = 0 if first else round(args.silent * args.batch)
        loss = torch.zeros(())
        for tokens, targets in parts(args.batch, silent, args.seed * 10**8 + step, negated=False if first else None):
            loss = loss + F.cross_entropy(model(tokens.ids, tokens.mask).logits, targets, reduction="sum") / args.batch
        return loss

    return loss_at


def parts(n: int, silent: int, seed: int, negated: bool | None = None) -> Iterator[tuple[Read, Tensor]]:
    """Training reviews and the probabilities of their labels, (B, 2): of B = n - silent, and of the first silent of
    them once more, without their opinions.
    """
    tokenizer = demo_bert_tokenizer()
    found = generated_reviews(n - silent, "train", seed, negated=negated)
    yield read(found, tokenizer), F.one_hot(found.labels, 2).float()
    if silent:
        without = generated_reviews(silent, "train", seed, negated=negated, swap="rationale")
        yield read(without, tokenizer), torch.full((silent, 2), 0.5)


def measure(model: BertForSequenceClassification, seed: int, n: int, split: str) -> tuple[Accuracy, Effect]:
    """All that the card says."""
    return evaluate(model, seed, n, split), effect(model, seed, n, split)


def options(parser: argparse.ArgumentParser) -> None:
    """What the reviews hold."""
    add = parser.add_argument
    add("--silent", type=float, default=0.25, help="share of reviews without an opinion")
    add("--grow", type=int, default=300, help="steps of reviews that all hold plain opinions, none negated")


DEFAULTS = {
    "steps": 6000, "batch": 32, "warmup": 100, "lr": 2e-3, "lr_rest": 1e-3, "ema": 0.99, "test": 2000,
    "every": 400,
}  # fmt: skip
RECIPE = Recipe(
    script="captum_vit.demo.reviews.train",
    about="Train the demo classifier of reviews.",
    model=lambda args: demo_bert(pretrained=False),
    losses=losses,
    measure=measure,
    card=card,
    blocks="encoder.layer",
    defaults=DEFAULTS,
    options=options,
)

if __name__ == "__main__":
    RECIPE.main()
