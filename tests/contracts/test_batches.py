"""A sample's map does not depend on its company."""

import torch

from tests.contracts.closeness import assert_close
from tests.contracts.pairs import Pair, draws, explain, rows


def test_a_row_equals_the_run_on_it_alone(pair):
    method, case = pair.to_compare(), pair.case
    if draws(method):
        return
    together = explain(method, case)
    for i in range(3):
        assert_close(together[i : i + 1], explain(method, rows(case, slice(i, i + 1))), "other batch")


def test_shuffled_batches_shuffle_maps(pair):
    method, case = pair.to_compare(), pair.case
    if draws(method):
        return
    order = torch.tensor([2, 0, 1])
    assert_close(explain(method, rows(case, order)), explain(method, case)[order], "other batch")


def test_the_same_call_twice_gives_the_same_map(pair):
    """On one instance, and on a new one."""
    method = pair.on()
    first = explain(method, pair.case)
    assert torch.equal(first, explain(method, pair.case))
    assert torch.equal(first, explain(pair.on(), pair.case))


def test_arguments_of_each_sample_stay_with_it(method):
    """Further arguments as long as the batch belong to the samples one by one."""
    pair = Pair(method, "timm ViT prompted")
    if draws(pair.on()):
        return
    together = explain(pair.on(), pair.case)
    for i in range(3):
        alone = explain(pair.on(), rows(pair.case, slice(i, i + 1)))
        assert_close(together[i : i + 1], alone, "other batch")
