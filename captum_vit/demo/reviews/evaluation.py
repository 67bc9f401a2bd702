"""What the demo classifier can do, and what its logits are about: measured, no method of explanation involved."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_vit.demo.evaluation import TEST_SEED, share
from captum_vit.demo.reviews.model import demo_bert_tokenizer
from captum_vit.demo.reviews.reviews import Reviews, generated_reviews
from captum_vit.demo.reviews.word_pieces import read


class Accuracy(NamedTuple):
    """Held-out accuracies, each over ``n`` reviews."""

    plain: float  # opinions as they are
    negated: float  # opinions behind a negator
    n: int


class Effect(NamedTuple):
    """What the label's logit loses when a part of a review is written anew, over ``n`` reviews."""

    rationale: float  # when plain words take the place of the opinions
    rest: float  # when all else is told otherwise; negative where the logit rises
    rest_share: float  # mean |rest| by mean |rationale|; 0: the logit is about the rationale alone
    least: float  # of all reviews, the share that loses more by the rationale than by the rest (absolute)
    negator: float  # when negators are left out of negated opinions
    words_rationale: float  # how many words the rationale has
    words_rest: float  # and how many all else, marks of punctuation left aside
    n: int


def evaluate(model: nn.Module, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> Accuracy:
    """How often the model is right about ``n`` plain reviews and ``n`` negated ones."""

    def share_right(negated: bool) -> float:
        found = generated_reviews(n, split, seed, negated=negated)
        return share(_logits(model, found).argmax(1) == found.labels)

    return Accuracy(share_right(False), share_right(True), n)


def effect(model: nn.Module, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> Effect:
    """Whose words move the logit of the label: each review is read whole, and with a part of it written anew.

    That a map should lie on the rationale is true of a model only as far as the other words leave the logit alone.
    """

    def lost(swap: str, negated: bool | None = None) -> Tensor:  # shape: (B,)
        whole = generated_reviews(n, split, seed, negated=negated)
        other = generated_reviews(n, split, seed, negated=negated, swap=swap)
        return (_logits(model, whole) - _logits(model, other)).gather(1, whole.labels[:, None]).squeeze(1)

    rationale, rest, negator = lost("rationale"), lost("rest"), lost("negator", negated=True)
    whole = generated_reviews(n, split, seed)
    decide = [sum(decides) for decides in whole.rationale]
    written = [sum(word.isalpha() for word in words) for words in whole.words]
    return Effect(
        rationale.mean().item(),
        rest.mean().item(),
        (rest.abs().mean() / rationale.abs().mean()).item(),
        share(rationale.abs() > rest.abs()),
        negator.mean().item(),
        sum(decide) / n,
        (sum(written) - sum(decide)) / n,
        n,
    )


@torch.no_grad()
def _logits(model: nn.Module, found: Reviews) -> Tensor:  # shape: (B, 2)
    tokens = read(found, demo_bert_tokenizer())
    rows = zip(tokens.ids.split(100), tokens.mask.split(100), strict=True)
    return torch.cat([model(ids, mask).logits for ids, mask in rows])
