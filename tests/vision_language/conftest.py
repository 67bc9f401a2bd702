"""Each family's model, made once for a file of tests."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from tests.vision_language.models import FAMILIES, made


class Question(NamedTuple):
    """A model, what its processor gave, and ids with two tokens of an answer."""

    model: nn.Module
    batch: dict[str, Any]
    ids: Tensor
    answer: cv.Answer

    @property
    def inputs(self) -> tuple[Tensor, Tensor]:
        return self.ids, self.batch["pixel_values"]


def question(name: str) -> Question:
    model, batch = made(name)
    prompt = batch["input_ids"]
    ids = torch.cat([prompt, torch.tensor([[11, 12]])], 1)
    return Question(model, batch, ids, cv.Answer(model, prompt.shape[1], inputs=batch))


@pytest.fixture(scope="module", params=FAMILIES)
def asked(request: pytest.FixtureRequest) -> Question:
    return question(request.param)


@pytest.fixture(scope="module")
def llava() -> Question:
    return question("LLaVA-1.5")


@pytest.fixture(scope="module")
def qwen() -> Question:
    return question("Qwen2.5-VL")
