"""Train the demo language model: ``python -m captum_vit.demo.facts.train --out FILE``.

Each training text states two to four facts and answers as many questions about them. The loss is that of the next
token, at the answers and the full stops behind them; all else of a text is drawn at random and cannot be known. No
word is marked as the one that decides. Texts are drawn on the fly and hardly ever repeat.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.demo.evaluation import Effect
from captum_vit.demo.facts.card import card
from captum_vit.demo.facts.evaluation import Answers, Follows, evaluate, follows, moved
from captum_vit.demo.facts.facts import stated_facts
from captum_vit.demo.facts.model import demo_lm, demo_lm_tokenizer
from captum_vit.demo.training import Recipe

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


def answers_in(
    ids: Tensor,  # shape: (B, N)
    its: int,
) -> Tensor:  # shape: (B, N), bool
    """Where the answers are, and the full stops behind them: ``its`` stands three and four tokens before."""
    found = torch.zeros_like(ids, dtype=torch.bool)
    found[:, 3:] |= ids[:, :-3] == its
    found[:, 4:] |= ids[:, :-4] == its
    return found


def losses(model: LlamaForCausalLM, args: argparse.Namespace) -> Callable[[int], Tensor]:
    """The loss of each step, on texts of its own."""
    tokenizer = demo_lm_tokenizer()
    its = tokenizer.convert_tokens_to_ids("its")

    def loss_at(step: int) -> Tensor:
        n = 2 + step % 3
        found = stated_facts(args.batch, "train", args.seed * 10**8 + step, n_facts=n, answered=n - 1)
        texts = [f"{prompt} {answer}." for prompt, answer in zip(found.prompts, found.answers, strict=True)]
        ids = tokenizer(texts, return_tensors="pt")["input_ids"]
        where = answers_in(ids, its)[:, 1:]
        return F.cross_entropy(model(ids, use_cache=False).logits[:, :-1][where], ids[:, 1:][where])

    return loss_at


def measure(model: LlamaForCausalLM, seed: int, n: int, split: str) -> tuple[Answers, Follows, Effect]:
    """All that the card says."""
    return evaluate(model, seed, n, split), follows(model, seed, n, split), moved(model, seed, n, split)


DEFAULTS = {
    "steps": 400, "batch": 64, "warmup": 50, "lr": 5e-3, "lr_rest": 3e-3, "decay": 0.01, "ema": 0.98,
    "test": 2000, "every": 100,
}  # fmt: skip
RECIPE = Recipe(
    script="captum_vit.demo.facts.train",
    about="Train the demo language model.",
    model=lambda args: demo_lm(pretrained=False),
    losses=losses,
    measure=measure,
    card=card,
    blocks="layers",
    defaults=DEFAULTS,
)

if __name__ == "__main__":
    RECIPE.main()
