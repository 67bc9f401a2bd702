"""Train the demo classifier of reviews: ``python -m captum_vit.demo.reviews.train --out FILE``.

Classification of whole reviews: no rationale is supervised. Reviews are drawn on the fly from the training sentences
and hardly ever repeat. Some of them hold no opinion, and of these the model should not know: both labels are to have
the same probability (``--silent``). One thread is the default. The optimizer Muon comes with torch 2.9.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from captum_vit.demo.reviews.card import card
from captum_vit.demo.reviews.evaluation import effect, evaluate
from captum_vit.demo.reviews.model import demo_bert, demo_bert_tokenizer
from captum_vit.demo.reviews.reviews import generated_reviews
from captum_vit.demo.reviews.word_pieces import Read, read
from captum_vit.demo.training import blend, card_beside, optimizers_of, schedule, take_step
from captum_vit.demo.weights import load_weights, save_weights


def train(args: argparse.Namespace) -> nn.Module:
    """Train from scratch; returns the averaged model."""
    torch.manual_seed(args.seed)
    model, average = demo_bert(pretrained=False).train(), demo_bert(pretrained=False)
    average.load_state_dict(model.state_dict())
    optimizers = optimizers_of(model, "encoder.layer", args.lr, args.lr_rest, args.decay)
    for step in (bar := trange(args.steps, mininterval=10)):
        first = step < args.grow  # plain opinions first: it shortens the plateau at the start
        silent = 0 if first else round(args.silent * args.batch)
        loss = torch.zeros(())
        for tokens, targets in parts(args.batch, silent, args.seed * 10**8 + step, negated=False if first else None):
            loss = loss + F.cross_entropy(model(tokens.ids, tokens.mask).logits, targets, reduction="sum") / args.batch
        model.zero_grad()
        loss.backward()
        take_step(optimizers, schedule(step, args.steps, warmup=100))
        blend(average, model, weight=max(1 - args.ema, 1 / (step + 1)))
        if (step + 1) % args.every == 0:
            n = args.test // 10
            figures = evaluate(average, args.seed, n, "train"), effect(average, args.seed, n, "train")
            bar.write(f"step {step + 1}: {figures} on training sentences")
    return average


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


def main() -> None:
    """Train, store, read the stored file back and print what it can do."""
    args = parser().parse_args()
    page = card_beside(args.out, args.overwrite)
    torch.set_num_threads(args.threads)
    save_weights(train(args), args.out)

    model = demo_bert(pretrained=False)
    load_weights(model, args.out)  # what is measured is what is shipped: after rounding to float16
    accuracy, moved = evaluate(model, n=args.test), effect(model, n=args.test)
    print(f"held-out sentences, {accuracy.n} reviews each: {accuracy.plain:.2%} right, negated {accuracy.negated:.2%}")
    command = "python -m captum_vit.demo.reviews.train " + shlex.join(sys.argv[1:])
    page.write_text(card(model, args, accuracy, moved, command))


def parser() -> argparse.ArgumentParser:
    """The command line; its defaults are the recipe."""
    options = argparse.ArgumentParser("captum_vit.demo.reviews.train", description=(__doc__ or "").split("\n")[0])
    add = options.add_argument
    add("--out", type=Path, required=True, help="file to write, with its card beside it, a .md file of the same name")
    add("--overwrite", action="store_true", help="replace --out where it exists")
    add("--steps", type=int, default=6000)
    add("--batch", type=int, default=32)
    add("--silent", type=float, default=0.25, help="share of reviews without an opinion")
    add("--seed", type=int, default=0)
    add("--grow", type=int, default=300, help="steps of reviews that all hold plain opinions, none negated")
    add("--lr", type=float, default=2e-3, help="peak learning rate of Muon (the blocks' matrices)")
    add("--lr-rest", type=float, default=1e-3, help="peak learning rate of AdamW (everything else)")
    add("--decay", type=float, default=0.05, help="weight decay of the blocks' matrices")
    add("--ema", type=float, default=0.99, help="decay of the running average of the weights")
    add("--threads", type=int, default=1)
    add("--test", type=int, default=2000, help="held-out reviews of each kind for the final figures")
    add("--every", type=int, default=400, help="steps between looks at how it goes")
    return options


if __name__ == "__main__":
    main()
