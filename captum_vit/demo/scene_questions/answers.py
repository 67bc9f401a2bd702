"""The answers about a scene as classes: what metrics for pictures can read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_vit.demo.digits.model import NAMES
from captum_vit.demo.scene_questions.evaluation import prompt_ids
from captum_vit.demo.scene_questions.model import demo_vlm_processor, tokens_read
from captum_vit.demo.scene_questions.questions import SIDES, question
from captum_vit.targets.scores import TargetModule


class DigitAnswers(TargetModule):
    """Pixels (B, 3, 64, 64) to ten logits (B, 10), one for each digit as the answer to the question about its side.

    The logits of zero to four are read behind ``What digit is low?``, those of five to nine behind ``What digit is
    high?``. Costs one forward pass of the tower and two of the language
    model.

    Args:
        model: :func:`captum_vit.demo.demo_vlm`.

    Example::

        >>> model, found = DigitAnswers(demo_vlm()), digit_questions(4, seed=3)
        >>> DecompX(model).attribute(found.images, target=found.digits[:, 0]).shape
        torch.Size([4, 1, 8, 8])
    """

    raw_scores = False
    prompts: Tensor
    words: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.model.vision_tower)
        words = demo_vlm_processor().tokenizer.convert_tokens_to_ids(list(NAMES))
        self.register_buffer("prompts", prompt_ids([question(side) for side in SIDES]))
        self.register_buffer("words", torch.tensor(words))

    def forward(self, pixels: Tensor) -> Tensor:  # shape: (B, 10)
        asked = tokens_read(self.model, self.prompts, pixels).unbind(1)
        logits = (self.model(inputs_embeds=tokens, use_cache=False).logits[:, -1] for tokens in asked)
        return torch.cat([of[:, words] for of, words in zip(logits, self.words.view(2, -1), strict=True)], 1)
