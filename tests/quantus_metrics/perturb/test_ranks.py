import pytest
import torch

from captum_vit.errors import InputError, OptionError
from quantus_metrics.perturb import rank, ranking_map, ranking_words, removable_words


def test_ranks_by_hand():
    relevance = torch.tensor([[[3.0, -1.0], [0.5, 7.0]]])
    assert rank(relevance, "mif").tolist() == [[[1, 3], [2, 0]]]
    assert rank(relevance, "lif").tolist() == [[[2, 0], [1, 3]]]


def test_equals_leave_from_the_upper_left():
    relevance = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    assert rank(relevance, "mif").tolist() == [[[0, 3, 1], [4, 2, 5]]]
    assert rank(relevance, "lif").tolist() == [[[3, 0, 4], [1, 5, 2]]]


def test_the_negative_map_turns_the_order_round_with_ties():
    relevance = torch.randint(-2, 3, (4, 5, 5)).float()
    assert torch.equal(rank(-relevance, "mif"), rank(relevance, "lif"))


@pytest.mark.parametrize("order", ["mif", "lif", "random"])
def test_who_may_not_leave_comes_last(order):
    relevance, among = torch.randn(3, 12), torch.rand(3, 12) < 0.6
    ranks = rank(relevance, order, among=among)
    assert (ranks.sort(1).values == torch.arange(12)).all()
    for row, free, values in zip(ranks, among, relevance, strict=True):
        assert row[free].max() < row[~free].min()
        if order != "random":
            assert torch.equal(row[free], rank(values[None, free], order)[0]), "in the order that they have alone"


def test_words_that_may_leave():
    ids = torch.tensor([[1, 7, 8, 2, 0], [1, 9, 2, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
    assert removable_words(ids).all()
    assert torch.equal(removable_words(ids, mask), mask.bool())
    assert removable_words(ids, mask, (1, 2)).tolist() == [[0, 1, 1, 0, 0], [0, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("relevance", "complaint"),
    [
        (torch.randn(2, 4), "each token"),
        (torch.tensor([[1.0, float("nan"), 2], [0, 1, 2]]), "finite"),
        (torch.tensor([[1.0, 1, 1], [0, 1, 2]]), "varies"),
    ],
)
def test_words_that_cannot_be_ranked(relevance, complaint):
    with pytest.raises(InputError, match=complaint):
        ranking_words(relevance, (2, 3))


@pytest.mark.parametrize("order", ["mif", "lif", "random"])
def test_ranks_are_a_permutation(order):
    ranks = rank(torch.randn(3, 4, 5), order).flatten(1)
    assert (ranks.sort(1).values == torch.arange(20)).all()


def test_random_order_is_the_generators_alone():
    before = torch.get_rng_state()
    lots = [rank(torch.zeros(2, 3, 3), "random", torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*lots)
    assert torch.equal(before, torch.get_rng_state())


def test_unknown_order():
    with pytest.raises(OptionError, match="morf"):
        rank(torch.randn(1, 2, 2), "morf")


def test_maps_of_patches_and_pixels():
    grid = torch.randn(2, 1, 3, 4)
    pixels = grid.repeat_interleave(7, 2).repeat_interleave(7, 3)
    assert torch.equal(ranking_map(grid, (21, 28)), grid.squeeze(1))
    assert torch.equal(ranking_map(pixels, (21, 28)), pixels.squeeze(1))
    assert torch.equal(ranking_map(pixels, (21, 28), patch_size=7), grid.squeeze(1))  # exactly, ties included
    assert torch.equal(ranking_map(grid, (21, 28), patch_size=7), grid.squeeze(1))


def test_patches_are_ranked_by_their_mean():
    pixels = torch.arange(16.0).view(1, 4, 4)
    assert ranking_map(pixels, (4, 4), patch_size=2).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]
    assert ranking_map(pixels, (4, 4), patch_size=(4, 2)).tolist() == [[[6.5, 8.5]]]


@pytest.mark.parametrize(
    ("relevance", "options", "complaint"),
    [
        (torch.tensor([[[0.0, 1.0]], [[0.0, float("nan")]]]), {}, r"row\(s\) \[1\]"),
        (torch.tensor([[[0.0, float("inf")]]]), {}, "finite"),
        (torch.ones(1, 4, 4), {}, "varies"),
        (torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(1, 4, 4), {"patch_size": 2}, "varies"),
        (torch.randn(1, 3, 8, 8), {}, "prefix"),
        (torch.randn(1, 17), {}, "prefix"),
        (torch.randn(1, 5, 5), {}, "h divides 8"),
        (torch.randn(0, 4, 4), {}, "shape"),
        (torch.randn(1, 4, 4), {"patch_size": 4}, "4 x 4"),
        (torch.randn(1, 8, 8), {"patch_size": 3}, "tile"),
    ],
    ids=["nan", "inf", "constant", "pooled", "channels", "tokens", "grid", "empty", "not", "tile"],
)
def test_what_ranks_nothing_raises(relevance, options, complaint):
    with pytest.raises(InputError, match=complaint):
        ranking_map(relevance, (8, 8), **options)
