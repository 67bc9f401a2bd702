"""A sample's map does not depend on its company: seen in double precision, where rounding hides nothing."""

import torch

from tests.contracts.closeness import assert_close
from tests.contracts.pairs import Pair, draws, explain, rows


def test_a_row_equals_the_run_on_it_alone(pair):
    case = pair.exact
    method = pair.on(case.forward_func)
    if draws(method):
        return
    together = explain(method, case)
    for i in range(3):
        assert_close(together[i : i + 1], explain(method, rows(case, slice(i, i + 1))), pair.rounding)


def test_shuffled_batches_shuffle_maps(pair):
    case = pair.exact
    method = pair.on(case.forward_func)
    if draws(method):
        return
    order = torch.tensor([2, 0, 1])
    assert_close(explain(method, rows(case, order)), explain(method, case)[order], pair.rounding)


def test_arguments_of_each_sample_stay_with_it(method):
    """Further arguments as long as the batch belong to the samples one by one."""
    pair = Pair(method, "timm ViT prompted")
    case = pair.exact
    explanation = pair.on(case.forward_func)
    if draws(explanation):
        return
    together = explain(explanation, case)
    for i in range(3):
        alone = explain(explanation, rows(case, slice(i, i + 1)))
        assert_close(together[i : i + 1], alone, pair.rounding)
