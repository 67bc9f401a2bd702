"""What the demo image-text model can do, and what its similarities are about: no method of explanation involved."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from captum_vit.demo.captions.model import demo_clip_tokenizer
from captum_vit.demo.captions.sentences import PROMPTS, TEMPLATES, named
from captum_vit.demo.digits.scenes import digit_scenes
from captum_vit.demo.evaluation import TEST_SEED, Effect, all_named, effect_of, share
from captum_vit.targets import TextSimilarity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import CLIPModel


class Retrieval(NamedTuple):
    """Held-out accuracies, each over ``n`` scenes; prompts are averaged over the templates."""

    single: float  # scenes of one digit: of ten prompts the most similar names it
    both: float  # scenes of two digits: of ten prompts the two most similar name both
    pair: float  # scenes of two digits: of the 45 captions of two digits the most similar is true
    n: int


def retrieval(model: CLIPModel, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> Retrieval:
    """How often the nearest texts are true, over ``n`` scenes of one digit and ``n`` of two."""
    digits = similarity_to(model, PROMPTS)
    pairs = torch.tensor(list(combinations(range(10), 2)))
    pair = similarity_to(model, [named(both) for both in pairs.tolist()])

    scenes = digit_scenes(n, 1, split, seed)
    single = all_named(_scores(digits, scenes.images), scenes.digits)
    scenes = digit_scenes(n, 2, split, seed)
    both = all_named(_scores(digits, scenes.images), scenes.digits)
    nearest = pairs[_scores(pair, scenes.images).argmax(1)] == scenes.digits.sort(1).values
    return Retrieval(share(single), share(both), share(nearest.all(1)), n)


def effect(model: CLIPModel, seed: int = TEST_SEED, n: int = 2000, split: str = "test") -> Effect:
    """What the similarity with "a three" loses when the three is left unwritten, and when the other digit is.

    As :func:`captum_vit.demo.digits.evaluation.effect`, of cosines in place of logits.
    """
    digit = digit_scenes(n, 2, split, seed).digits[:, :1]
    similarity = similarity_to(model, PROMPTS)

    def cosine(without: int | None) -> Tensor:  # shape: (B,)
        images = digit_scenes(n, 2, split, seed, without=without).images
        return _scores(similarity, images).gather(1, digit).squeeze(1)

    return effect_of(cosine(None), cosine(0), cosine(1))


def similarity_to(model: CLIPModel, texts: Sequence[str]) -> TextSimilarity:
    """The cosine of images with texts, each text averaged over the captions' templates."""
    return TextSimilarity.from_texts(model, demo_clip_tokenizer(), texts, templates=TEMPLATES)


@torch.no_grad()
def _scores(similarity: TextSimilarity, images: Tensor) -> Tensor:  # shape: (B, K)
    return torch.cat([similarity(batch) for batch in images.split(100)])
