"""A decoder that reads the tokens of many blocks, which hooks on the blocks keep for it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import captum_vit as cv
from captum_vit.sites.site import running
from tests.captum_vit.targets.dense_models import dpt


@pytest.mark.parametrize("number", range(4))
def test_what_is_put_behind_a_block_reaches_the_decoder(number: int) -> None:
    model, x = dpt(), torch.randn(1, 3, 64, 64)
    pixel = cv.Pixel(model, (5, 7))
    block, layer = cv.spec_of(pixel, x).blocks[number], model.dpt.encoder.layer[number]

    def halved(tokens: Tensor) -> Tensor:
        return tokens / 2

    with torch.no_grad():
        plain, forward = pixel(x), layer.forward
        with running(lambda *args, **kwargs: halved(forward(*args, **kwargs)), [layer]):
            wanted = pixel(x)
        handle = block.out.hook(halved)
        found = pixel(x)
        handle.remove()
    torch.testing.assert_close(found, wanted)
    assert (found - plain).abs().max() > 1e-3 * plain.abs().max()
    torch.testing.assert_close(pixel(x), plain)


def test_blocks_follow_each_other() -> None:
    blocks = cv.spec_of(cv.Pixel(dpt(), (5, 7)), torch.randn(1, 3, 64, 64)).blocks
    assert [block.follows for block in blocks] == [False, True, True, True]
    assert all(before.out == block.entrance for before, block in pairwise(blocks))
