"""What the demo language model can do, and which words its answers follow: no method of explanation involved."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_vit.demo.evaluation import TEST_SEED, Effect, effect_of, share
from captum_vit.demo.facts.facts import Facts, stated_facts
from captum_vit.demo.facts.model import demo_lm_tokenizer


class Answers(NamedTuple):
    """How often the likeliest next word is the answer, over ``n`` prompts each."""

    first: float  # the only question of a prompt
    last: float  # behind three questions and their answers
    n: int


class Follows(NamedTuple):
    """How often the likeliest next word is right of a prompt in which words were written anew, over ``n`` prompts."""

    evidence: float  # a word of another value in place of the fact's: the answer is that value
    synonym: float  # another word of the same value: the answer stays
    rest: float  # words of other values in place of all others: the answer stays
    question: float  # the question for another kind: the answer is the value of that
    n: int


def evaluate(model: nn.Module, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> Answers:
    """How often the model answers ``n`` questions of either place."""
    first, last = (_right(model, stated_facts(n, split, seed, answered=answered)) for answered in (0, 3))
    return Answers(first, last, n)


def follows(model: nn.Module, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> Follows:
    """How often the answer follows its fact and the question, and nothing else: one part of each prompt is anew."""
    swaps = "evidence", "synonym", "rest", "question"
    evidence, synonym, rest, question = (_right(model, stated_facts(n, split, seed, swap=swap)) for swap in swaps)
    return Follows(evidence, synonym, rest, question, n)


def moved(model: nn.Module, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> Effect:
    """What the logit of the answer loses by another value in place of the evidence, and by other words beside it."""
    answers = _ids(stated_facts(n, split, seed))
    logits = (next_logits(model, stated_facts(n, split, seed, swap=swap)) for swap in (None, "evidence", "rest"))
    return effect_of(*(of.gather(1, answers[:, None]).squeeze(1) for of in logits))


@torch.no_grad()
def next_logits(model: nn.Module, facts: Facts) -> Tensor:  # shape: (B, V)
    """Of the word that goes on with each prompt."""
    ids = demo_lm_tokenizer()(facts.prompts, return_tensors="pt")["input_ids"]
    return torch.cat([model(batch).logits[:, -1] for batch in ids.split(200)])


def _right(model: nn.Module, facts: Facts) -> float:
    return share(next_logits(model, facts).argmax(1) == _ids(facts))


def _ids(facts: Facts) -> Tensor:
    return torch.tensor(demo_lm_tokenizer().convert_tokens_to_ids(facts.answers))
