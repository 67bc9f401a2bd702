"""Where a head reads the tokens: behind the last norm, in any layout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.trace.record.head import read_at
from tests.captum_vit.trace.headed import (
    SIDE,
    WIDTH,
    Linear,
    made,
    pictures,
    seen,
    shown,
)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_each_token_is_traced_to_its_row_in_every_precision(dtype: torch.dtype) -> None:
    rows = torch.randn(2, 300, 8, dtype=dtype, requires_grad=True)
    order = torch.randperm(300)[:280]
    tokens = F.layer_norm(rows[:, order], (8,))
    at = read_at(rows, tokens.pow(2).mean(1).sum(), [tokens, tokens * 2])
    assert at.x is tokens and at.tokens(tokens).shape == (560, 8)
    numbers = at.by_row(torch.arange(560).float(), (2, 300))
    assert torch.equal(numbers[:, order], torch.arange(560).float().view(2, 280)) and (numbers > 0).sum() == 559


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + x.mean(1, keepdim=True),
        lambda x: x.roll(1, 1) + x,
        lambda x: F.avg_pool1d(x.mT, 2, 2).mT,
        lambda x: x[:, [0, 0, 1, 2]],
        lambda x: x.cumsum(1),
    ],
)
def test_where_tokens_are_mixed_or_doubled_they_are_no_longer_rows(mix: Callable[[Tensor], Tensor]) -> None:
    rows = torch.randn(2, 6, 8, dtype=torch.float64, requires_grad=True)
    normed = F.layer_norm(rows, (8,))
    mixed = mix(normed)
    at = read_at(rows, mixed.pow(2).sum(), [normed, mixed])
    assert at.x is normed and at.rows.tolist() == at.made.tolist() == list(range(12))


def test_a_tensor_that_a_path_runs_past_is_no_place() -> None:
    rows = torch.randn(2, 6, 8, dtype=torch.float64, requires_grad=True)
    keys, values = F.layer_norm(rows, (8,)), rows * 2
    score = (keys.softmax(1) * values).sum()
    assert read_at(rows, score, [keys, values]).x is rows
    halves = torch.cat([rows, rows], -1).chunk(2, -1)
    assert read_at(rows, (halves[0] * halves[1]).sum(), list(halves)).x is rows


def in_a_grid(x: Tensor) -> Tensor:
    return F.layer_norm(x[:, 1:].unflatten(1, (SIDE, SIDE)), (WIDTH,)).mean((1, 2))


def channels_first(x: Tensor) -> Tensor:
    x = x[:, 1:].mT.unflatten(2, (SIDE, SIDE))
    x = x - x.mean(1, keepdim=True)
    return (x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt()).mean((2, 3))


def tokens_first(x: Tensor) -> Tensor:
    return F.layer_norm(x.transpose(0, 1), (WIDTH,))[1:].mean(0)


LAYOUTS = {"a grid": in_a_grid, "channels first": channels_first, "tokens first": tokens_first}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_norm_of_tokens_in_another_layout_is_found(name: str) -> None:
    model, x = made(Linear(lambda x: F.layer_norm(x, (WIDTH,))[:, 1:].mean(1)), normalised=False), pictures()
    wanted = seen(model, x, "evidence").row
    model.head.pool = LAYOUTS[name]
    torch.testing.assert_close(seen(model, x, "evidence").row, wanted)


def hidden_before(x: Tensor) -> Tensor:
    return (F.layer_norm(x * shown(x), (WIDTH,)) * shown(x)).sum(1) / shown(x).sum(1)


def end_to_end(x: Tensor) -> Tensor:
    kept = shown(x).squeeze(2).bool()
    sample = torch.arange(len(x)).unsqueeze(1).expand_as(kept)[kept]
    tokens = F.layer_norm(x[kept], (WIDTH,))
    return x.new_zeros(len(x), WIDTH).index_add(0, sample, tokens) / shown(x).sum(1)


@pytest.mark.parametrize("pool", [hidden_before, end_to_end])
def test_a_norm_of_the_tokens_that_a_mask_keeps_is_found(pool: Callable[[Tensor], Tensor]) -> None:
    """The second sample has fewer words, whose places the norm sees as zeros, or not at all."""
    behind = Linear(lambda x: (F.layer_norm(x, (WIDTH,)) * shown(x)).sum(1) / shown(x).sum(1))
    model, x = made(behind, normalised=False), pictures()
    wanted = {kind: seen(model, x, kind).row for kind in ("evidence", "target")}
    model.head.pool = pool
    for kind, row in wanted.items():
        torch.testing.assert_close(seen(model, x, kind).row, row)
    swapped = seen(model, x.flip(0), "evidence").row  # now it is the first that has all
    model.head.pool = behind.pool = lambda x: (F.layer_norm(x, (WIDTH,)) * shown(x)).sum(1) / shown(x).sum(1)
    torch.testing.assert_close(swapped, seen(model, x.flip(0), "evidence").row)


def test_products_that_are_nothing_but_rounding_are_no_evidence() -> None:
    """Each sample has a norm of its own here, so no tensor holds all tokens behind it: lengths of gradients count."""

    def pool(x: Tensor) -> Tensor:
        return torch.stack([F.layer_norm(one, (WIDTH,))[1:].mean(0) for one in x])

    model, x = made(Linear(pool), normalised=False), pictures()
    torch.testing.assert_close(seen(model, x, "evidence").row, seen(model, x, "target").row)


def test_the_weight_of_a_norm_that_is_written_out_belongs_to_it() -> None:
    rows, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 6, 8), (8,), (8,)))
    rows.requires_grad_()
    normed = rows * rows.pow(2).mean(-1, keepdim=True).rsqrt()
    scaled = weight * normed
    shifted = scaled + bias
    bent = shifted.tanh()
    at = read_at(rows, bent.pow(2).mean(1).sum(), [normed, scaled, shifted, bent])
    assert at.x is shifted and at.made.tolist() == list(range(12))
