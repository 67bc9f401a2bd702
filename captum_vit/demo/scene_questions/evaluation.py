"""What the demo vision-language model can do, and what its answers follow: no method of explanation involved."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_vit.demo.evaluation import TEST_SEED, Effect, effect_of, share
from captum_vit.demo.scene_questions.model import demo_vlm_processor
from captum_vit.demo.scene_questions.questions import DigitQuestions, digit_questions, question


class Answers(NamedTuple):
    """How often the likeliest next word is the answer, over ``n`` scenes each."""

    low: float  # to the question for the low digit
    high: float  # and to that for the high one
    n: int


class Follows(NamedTuple):
    """How often the likeliest next word is right of a scene in which one digit is another one, over ``n`` scenes."""

    digit: float  # another digit in place of the one that is asked for: the answer is that digit
    other: float  # another digit in place of the other one: the answer stays
    n: int


def evaluate(model: nn.Module, seed: int = TEST_SEED, n: int = 1000, split: str = "test") -> Answers:
    """How often the model answers either question about ``n`` scenes."""
    found = digit_questions(n, split, seed), digit_questions(n, split, seed, swap="question")
    low = torch.tensor([prompt == question("low") for prompt in found[0].prompts])
    right, other = (next_logits(model, of).argmax(1) == _ids(of) for of in found)
    return Answers(share(torch.where(low, right, other)), share(torch.where(low, other, right)), n)


def follows(model: nn.Module, seed: int = TEST_SEED, n: int = 1000, split: str = "test") -> Follows:
    """How often the answer follows the digit that is asked for, and not the other one."""
    found = (digit_questions(n, split, seed, swap=swap) for swap in ("digit", "other"))
    digit, other = (share(next_logits(model, of).argmax(1) == _ids(of)) for of in found)
    return Follows(digit, other, n)


def moved(model: nn.Module, seed: int = TEST_SEED, n: int = 1000, split: str = "test") -> Effect:
    """What the logit of the answer loses when its digit is left unwritten, and when the other digit is."""
    answers = _ids(digit_questions(n, split, seed))
    logits = (next_logits(model, digit_questions(n, split, seed, without=without)) for without in (None, 0, 1))
    return effect_of(*(of.gather(1, answers[:, None]).squeeze(1) for of in logits))


@torch.no_grad()
def next_logits(model: nn.Module, found: DigitQuestions) -> Tensor:  # shape: (B, V)
    """Of the word that goes on with each prompt."""
    ids = prompt_ids(found.prompts)
    rows = zip(ids.split(100), found.images.split(100), strict=True)
    return torch.cat([model(ids, pixels, logits_to_keep=1).logits[:, -1] for ids, pixels in rows])


def prompt_ids(prompts: list[str]) -> Tensor:  # shape: (B, N)
    """Prompts of the same number of words as the processor reads them beside 64 x 64 pixels."""
    processor, patches = demo_vlm_processor(), 64
    texts = [prompt.replace(processor.image_token, processor.image_token * patches) for prompt in prompts]
    return processor.tokenizer(texts, return_tensors="pt")["input_ids"]


def _ids(found: DigitQuestions) -> Tensor:
    return torch.tensor(demo_vlm_processor().tokenizer.convert_tokens_to_ids(found.answers))
