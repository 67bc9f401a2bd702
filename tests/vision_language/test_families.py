"""On every layout of vision-language models: what words, patches and constants add is the score."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import captum_vit as cv
from tests.vision_language.conftest import Question
from tests.vision_language.models import IMAGE

NEWLINE = 9  # every ninth row of tiles, in LLaVA-NeXT and OneVision, is a constant
PAIRS = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
SINGLY = torch.arange(16).view(4, 4)


@pytest.mark.parametrize("rule", ["frozen", "libra"])
def test_words_patches_and_constants_sum_to_the_score(asked: Question, rule: str) -> None:
    found = cv.DecompX(asked.answer, rule=rule).decompose(asked.inputs, target=1)
    with torch.no_grad():
        logits = asked.answer(*asked.inputs)
    assert torch.equal(found.score, logits[:, 1])
    assert found.residual.abs().max() < 1e-6
    assert found.tower.abs().sum() > 0.1
    assert not found.words[asked.ids == IMAGE].any()
    assert not found.words[:, -1].any()  # the score is read in front of it


def test_the_maps_are_those_of_the_sum(asked: Question) -> None:
    words, patches = cv.DecompX(asked.answer).attribute(asked.inputs, target=1)
    found = cv.DecompX(asked.answer).decompose(asked.inputs, target=1)
    assert torch.equal(words, found.words) and torch.equal(patches, found.patches)
    torch.testing.assert_close(torch.stack([image.sum() for image in found.images]).sum(), patches.sum())


def test_blocks_that_run_again_give_the_same_maps(asked: Question) -> None:
    plain = cv.DecompX(asked.answer).attribute(asked.inputs, target=0)
    again = cv.DecompX(asked.answer, checkpoint=True).attribute(asked.inputs, target=0)
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_image_tokens_are_the_placeholders_and_each_knows_its_patches(asked: Question) -> None:
    """A map that numbers the image tokens of each picture, laid on the patches."""
    found = cv.image_tokens(asked.answer, asked.inputs)
    placeholders = (asked.ids == IMAGE)[0].nonzero().flatten()
    tiled = "image_sizes" in asked.batch
    if tiled:  # the whole picture, then rows of two tiles that end in a newline
        rows = torch.arange(len(placeholders) - 16)
        placeholders = placeholders[torch.cat([torch.arange(16), 16 + rows[rows % NEWLINE != NEWLINE - 1]])]
    assert torch.equal(found.rows[0].nonzero().flatten(), placeholders)
    numbers = torch.zeros_like(found.rows, dtype=torch.float64)
    numbers[0, placeholders] = torch.arange(1, len(placeholders) + 1, dtype=torch.float64)
    for image, wanted in zip(found.images(numbers), expected(asked, tiled), strict=True):
        torch.testing.assert_close(image, wanted)


def expected(asked: Question, tiled: bool) -> list[Tensor]:
    """For each picture the number of the token of each patch, divided by its patches."""
    if "image_grid_thw" in asked.batch:
        first = torch.arange(1, 9).view(2, 4).repeat_interleave(2, 0).repeat_interleave(2, 1)
        second = torch.arange(9, 13).view(2, 2).repeat_interleave(2, 0).repeat_interleave(2, 1)
        return [first.double() / 4, second.double() / 4]
    if tiled:
        tiles = torch.arange(17, 49).view(4, 8).double()
        return [SINGLY.double() + 1, tiles[:, :4], tiles[:, 4:]]
    pictures = 1 if asked.inputs[1].dim() == 4 and len(asked.inputs[1]) == 1 else 2
    one, n = (SINGLY, 16) if int((asked.ids == IMAGE).sum()) == 16 * pictures else (PAIRS, 4)
    return [(one + 1 + n * k).double() / (16 // n) for k in range(pictures)]
