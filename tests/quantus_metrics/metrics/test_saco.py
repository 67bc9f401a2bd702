"""SaCo against the algorithm in loops, on a model whose groups add up; and the groups of `curves` by hand."""

import numpy as np
import pytest
import torch

import quantus_metrics as qm
from captum_vit.errors import InputError, OptionError
from quantus_metrics.metrics.saco import saco
from quantus_metrics.perturb import Fill, MaskKeys, curves
from tests.malformed.bad import BERT, IDS, MASK


def twin(salience: list[float], without: list[float]) -> float:
    """The paper's algorithm: pairs of groups, from the most salient on."""
    total = weight = 0.0
    for i in range(len(salience)):
        for j in range(i + 1, len(salience)):
            difference = salience[i] - salience[j]
            total += difference if 1 - without[i] >= 1 - without[j] else -difference
            weight += abs(difference)
    return total / weight


def test_it_is_the_paper_in_loops(additive):
    """Effects of groups of 36 patches, each removed by itself, and 36 is not a multiple of ten."""
    weights = torch.randn(2, 6, 6)
    model, maps = additive(weights), np.random.default_rng(0).standard_normal((3, 6, 6))
    metric = qm.SaCo(remover=Fill(), return_curves=True)
    found = metric(model, model.ones(3), np.array([0, 1, 1]), maps, softmax=False, batch_size=2)
    assert model.images == 3 * 10
    for i, target in enumerate((0, 1, 1)):
        order = np.argsort(-maps[i].flatten(), kind="stable")
        groups = [order[int(3.6 * k + 0.5) : int(3.6 * (k + 1) + 0.5)] for k in range(10)]
        gone = [float(weights[target].flatten()[group].sum()) for group in groups]
        without = [float(weights[target].sum()) - one for one in gone]
        assert metric.curves["mif"].scores[i].tolist() == pytest.approx(without, abs=1e-5)
        assert found[i] == pytest.approx(twin([maps[i].flatten()[g].mean() for g in groups], without), abs=1e-6)
    assert len(set(found)) == 3


def test_its_limits():
    falling, rising = torch.tensor([[4.0, 3.0, 1.0]]), torch.tensor([[0.1, 0.2, 0.3]])
    assert saco(falling, rising).item() == 1
    assert saco(falling, rising.flip(1)).item() == -1
    assert saco(falling, torch.zeros(1, 3)).item() == 1  # what has no effect agrees with everything


def test_groups_of_words_leave_out_padding():
    relevance = torch.rand(len(IDS), IDS.shape[1], generator=torch.Generator().manual_seed(0))
    among, options = MASK.bool(), {"orders": ("mif",), "fractions": (0.5, 1), "remover": MaskKeys(), "apart": True}
    found = curves(BERT, IDS, 0, relevance, args=(MASK,), among=among, **options)["mif"].relevance
    for row, real, means in zip(relevance, among, found, strict=True):
        words = row[real].sort(descending=True).values
        half = int(len(words) / 2 + 0.5)
        torch.testing.assert_close(means.float(), torch.stack([words[:half].mean(), words[half:].mean()]))


def test_more_groups_than_parts_are_refused(additive):
    model = additive(torch.randn(1, 3, 3))
    with pytest.raises(InputError, match="10 groups of 9"):
        qm.SaCo()(model, model.ones(1), np.zeros(1, int), np.random.rand(1, 3, 3))
    assert model.images == 0
    with pytest.raises(OptionError, match="above 0"):
        qm.SaCo(fractions=(0, 0.5, 1))
