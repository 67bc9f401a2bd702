"""Where patches lie, against the processors' own order and against changes of single pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor

import captum_vit as cv
from captum_vit.trace.layout.image_tokens import pictures_in
from captum_vit.trace.layout.pictures import Pictures
from captum_vit.trace.run.describe import towers_of
from captum_vit.trace.run.state import undisturbed
from tests.vision_language.conftest import Question, question
from tests.vision_language.models import IMAGE, made

PATCH = 14


def pictures(asked: Question) -> Pictures:
    with undisturbed(asked.answer):
        towers = towers_of(asked.answer, asked.inputs, ())
        return pictures_in(asked.answer, towers, asked.inputs, ())


@pytest.mark.parametrize("place", [(0, 1), (1, 0), (2, 5), (3, 7)])
def test_flat_patches_lie_where_the_processor_cut_them(qwen: Question, place: tuple[int, int]) -> None:
    """A picture of 4 x 8 patches, of which one is white: what the processor makes of it is white in the same place."""
    row, column = place
    picture = np.zeros((4 * PATCH, 8 * PATCH, 3), np.uint8)
    picture[PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)] = 255
    processor = hf.Qwen2VLImageProcessor(patch_size=PATCH, do_resize=False)
    flat = processor(picture, return_tensors="pt")
    assert flat["image_grid_thw"].tolist() == [[1, 4, 8]]
    white = (flat["pixel_values"].mean(1) > 0).double()
    found = pictures(qwen)
    relevance = torch.zeros(len(found.special), dtype=torch.float64)
    assert found.rows is not None
    relevance[found.rows[: len(white)]] = white
    wanted = torch.zeros(4, 8, dtype=torch.float64)
    wanted[row, column] = 1
    assert torch.equal(found.maps(relevance)[0], wanted)


@pytest.mark.parametrize("name", ["LLaVA-NeXT", "SmolVLM", "InternVL"])
def test_a_patch_is_where_its_pixels_are(name: str) -> None:
    """Other pixels at one place move the token that lies there, and no other, where they enter the tower."""
    asked = question(name)
    found = pictures(asked)
    with undisturbed(asked.answer):
        place = towers_of(asked.answer, asked.inputs, ()).patches
    ids, pixels = asked.inputs
    changed = pixels.clone()
    changed.view(-1, 3, 56, 56)[1, :, PATCH : 2 * PATCH, 2 * PATCH : 3 * PATCH] += 1  # row 1, column 2 of the second
    seen: list[Tensor] = []
    handle = place.hook(seen.append)
    with torch.no_grad():
        for x in (pixels, changed):
            asked.answer(ids, x)
    handle.remove()
    moved = (seen[0] != seen[1]).any(-1).flatten().double()
    maps = found.maps(moved)
    assert moved.sum() == 1 and maps[1][1, 2] == 1 and sum(one.sum() for one in maps) == 1


def test_pictures_are_enlarged_to_their_pixels(llava: Question) -> None:
    words, large = cv.DecompX(llava.answer, output="pixels").attribute(llava.inputs, target=0)
    _, grid = cv.DecompX(llava.answer).attribute(llava.inputs, target=0)
    assert large.shape == (2, 1, 56, 56) and words.shape == llava.ids.shape
    wanted = torch.nn.functional.interpolate(grid, (56, 56), mode="bilinear")
    torch.testing.assert_close(large, wanted)


def test_tokens_and_channels_of_the_tower_come_as_they_enter_it(llava: Question) -> None:
    words, tokens = cv.DecompX(llava.answer, output="tokens").attribute(llava.inputs, target=0)
    by_channel = cv.DecompX(llava.answer, output="channels").attribute(llava.inputs, target=0)
    _, grid = cv.DecompX(llava.answer).attribute(llava.inputs, target=0)
    assert tokens.shape == (2, 17)
    assert torch.equal(tokens[:, 1:].reshape(grid.shape), grid)
    torch.testing.assert_close(by_channel[0].sum(-1), words)
    torch.testing.assert_close(by_channel[1].sum(-1), tokens)


def test_a_batch_with_left_padding_is_each_prompt_by_itself() -> None:
    model, batch = made("LLaVA-1.5")
    one, other = batch["pixel_values"]
    short = torch.tensor([[1, *[IMAGE] * 16, 7, 9, 11]])
    long = torch.tensor([[1, 5, 6, *[IMAGE] * 16, 8, 9, 12]])
    padded = torch.cat([torch.nn.functional.pad(short, (2, 0)), long])
    mask = torch.ones_like(padded)
    mask[0, :2] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    inputs = {"attention_mask": mask[:, :-1], "position_ids": positions[:, :-1]}
    answer = cv.Answer(model, padded.shape[1] - 1, inputs=inputs)
    together = cv.DecompX(answer).decompose((padded, torch.stack([one, other])), target=0)
    for row, (ids, pixels) in enumerate([(short, one), (long, other)]):
        alone = cv.DecompX(cv.Answer(model, ids.shape[1] - 1)).decompose((ids, pixels[None]), target=0)
        torch.testing.assert_close(together.words[row, -ids.shape[1] :], alone.words[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(together.images[row], alone.images[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(together.constants[row], alone.constants[0], rtol=0, atol=1e-6)
    assert not together.words[0, :2].any()


def test_a_picture_that_only_fills_a_batch_up_has_no_patches() -> None:
    """SmolVLM leaves out pictures of zeros; those behind them keep their own tokens."""
    model, batch = made("SmolVLM")
    filled = torch.cat([batch["pixel_values"][:, :1], torch.zeros(1, 1, 3, 56, 56), batch["pixel_values"][:, 1:]], 1)
    ids = torch.cat([batch["input_ids"], torch.tensor([[11]])], 1)
    method = cv.DecompX(cv.Answer(model, ids.shape[1] - 1))
    plain, found = (method.decompose((ids, x), target=0) for x in (batch["pixel_values"], filled))
    assert found.residual.abs().max() < 1e-6
    assert torch.equal(found.images[0], plain.images[0]) and torch.equal(found.images[2], plain.images[1])
    assert found.images[1].shape == (1, 1) and not found.images[1].any()
    assert found.patches.shape == (1, 3, 1, 4, 4)
