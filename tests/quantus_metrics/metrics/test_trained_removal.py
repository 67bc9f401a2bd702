"""IDSDS and FFidelity: by hand on models that add up, by a second implementation on a ViT, and what is refused."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.errors import OptionError, UnsupportedModelError
from quantus_metrics.metrics.ffidelity import drawn_among
from quantus_metrics.metrics.idsds import single_deletion_correlation
from quantus_metrics.perturb import Fill, MaskKeys

WEIGHTS = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))


def call(metric, model, maps, **kwargs):
    """The scores of maps (n, 4, 4) for class 0 of images on which every patch counts in full."""
    return metric(model, model.ones(len(maps)), np.zeros(len(maps), int), np.asarray(maps), **kwargs)


class Seen(Fill):
    """Keeps which cells went."""

    def bind(self, model, inputs, args=()):
        answer = super().bind(model, inputs, args)

        def kept(rows: Tensor, gone: Tensor) -> Tensor:
            self.gone = [*getattr(self, "gone", []), *gone]
            return answer(rows, gone)

        return kept


class AllNeeded(nn.Module):
    """Answers with class 0 while more than `least` of 16 patches of ones are left."""

    def __init__(self, least: float):
        super().__init__()
        self.least, self.scale = least, nn.Parameter(torch.ones(()))
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        left = self.scale * inputs.mean((1, 2, 3)) * 16 - self.least
        return torch.stack([left, -left], 1)

    ones = staticmethod(lambda n: np.ones((n, 3, 16, 16), np.float32))


def test_the_order_of_single_losses_is_the_best_map_and_its_negative_the_worst(additive):
    """One model that adds up, of which each patch costs its weight; maps of patches and of pixels."""
    model, random = additive(WEIGHTS), np.random.default_rng(1).standard_normal((4, 4))
    maps = np.stack([WEIGHTS[0].exp().numpy(), random, -WEIGHTS[0].numpy()])
    by_hand = [1, stats.spearmanr(random.ravel(), WEIGHTS[0].flatten()).statistic, -1]
    assert call(qm.IDSDS(), model, maps) == pytest.approx(by_hand, abs=1e-6)
    assert model.images == 3 * 17
    assert call(qm.IDSDS(), model, maps.repeat(4, 1).repeat(4, 2)) == pytest.approx(by_hand, abs=1e-6)
    assert call(qm.IDSDS(internal_batch_size=5), model, maps) == pytest.approx(by_hand, abs=1e-6)


def test_ranks_are_averaged_over_ties_and_what_does_not_vary_has_no_score(additive):
    maps, losses = torch.tensor([[[1.0, 1], [0, 2]]] * 2), torch.tensor([[[3.0, 1], [1, 9]], [[5.0, 5], [5, 5]]])
    found = single_deletion_correlation(maps, losses)
    assert found[0].item() == pytest.approx(stats.spearmanr([1, 1, 0, 2], [3, 1, 1, 9]).statistic)
    assert found[1].isnan()
    with pytest.warns(UserWarning, match="2 of 2 samples have no single-deletion score"):
        call(metric := qm.IDSDS(), additive(torch.zeros(2, 4, 4)), np.stack([WEIGHTS[0].numpy()] * 2))
    assert np.isnan(metric.scores).all()


def test_a_patch_of_a_transformer_leaves_the_sequence(timm_vit, data):
    """A second implementation: the blocks, run on what is left of the tokens; and hiding says the same."""
    model, x, y = timm_vit.double(), torch.tensor(data["x_batch"][:2]).double(), data["y_batch"][:2]
    maps = np.random.default_rng(1).standard_normal((2, 4, 4))
    with torch.no_grad():
        tokens = model._pos_embed(model.patch_embed(x))
        kept = [list(range(17)), *([i for i in range(17) if i != gone + 1] for gone in range(16))]
        logits = torch.stack([model.forward_head(model.norm(model.blocks(tokens[:, rows]))) for rows in kept])
    losses = [logits[0, i, c] - logits[1:, i, c] for i, c in enumerate(y)]
    by_hand = [stats.spearmanr(maps[i].ravel(), losses[i]).statistic for i in range(2)]
    for metric in (qm.IDSDS(), qm.IDSDS(remover=MaskKeys())):
        assert metric(model, x.numpy(), y, maps) == pytest.approx(by_hand, abs=1e-6)


def test_ablation_of_the_logit_is_what_single_deletion_asks_for(timm_vit, data):
    explain = qm.explain_func(partial(cv.TokenAblation, score="logit"))
    assert qm.IDSDS()(timm_vit.double(), **data, explain_func=explain) == pytest.approx([1] * 6)


@pytest.mark.parametrize(("reads", "read"), [("accuracy", lambda p: p > 0.5), ("probability", lambda p: p)])
def test_where_all_that_is_chosen_goes_nothing_is_random(additive, reads, read):
    """With alpha 1 and beta near it; the weights of class 1 are 0, so class 0 answers while its sum is positive."""
    weights = torch.stack([WEIGHTS[0] + 0.1, torch.zeros(4, 4)])
    maps, flat = np.stack([WEIGHTS[0].numpy(), -WEIGHTS[0].numpy()]), weights[0].flatten().double()

    def left(gone):
        return float(read(torch.sigmoid(flat.sum() - flat[gone].sum())))

    order = flat.argsort(descending=True)
    first, last, whole = left(order[:4]), left(order[4:]), left(order[:0])
    others = left(order[-4:]), left(order[:-4])
    options = {"alpha": 1, "beta": 0.99, "sizes": (0.25,), "n_draws": 2, "reads": reads}
    model = additive(weights)
    assert call(qm.FFidelity(**options), model, maps) == pytest.approx([whole - first, whole - others[0]])
    minus = qm.FFidelity(score="minus", **options)
    assert call(minus, model, maps) == pytest.approx([whole - last, whole - others[1]])
    assert minus.score_direction.value == "lower"
    both = qm.FFidelity(score="difference", **options)
    assert call(both, model, maps) == pytest.approx([last - first, others[1] - others[0]])


@pytest.mark.parametrize(("score", "first"), [("plus", True), ("minus", False)])
def test_a_random_share_of_the_chosen_goes_within_the_bound(additive, score, first):
    seen, maps = Seen(), np.stack([WEIGHTS[0].numpy()])
    options = {"alpha": 0.5, "beta": 0.25, "sizes": (0.25, 0.75), "n_draws": 20}
    call(qm.FFidelity(score=score, remover=seen, **options), additive(WEIGHTS), maps)
    order = WEIGHTS[0].flatten().argsort(descending=True)
    for gone, size in zip(torch.stack(seen.gone).view(2, 20, 16), (4, 12), strict=True):
        chosen = order[:size] if first else order[size:]
        assert set(gone.sum(1).tolist()) == {min(len(chosen) // 2, 4)}
        times = gone.sum(0)
        assert times[chosen].sum() == times.sum() and times[chosen].min() > 0  # these alone, and each at some time


def test_draws_are_those_of_the_seed():
    chosen, lots = (
        torch.tensor([[True, True, False, True], [False, True, True, True]]),
        torch.tensor([0.4, 0.3, 0.1, 0.2]),
    )
    assert drawn_among(chosen, 2, lots).int().tolist() == [[0, 1, 0, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize("kind", [qm.IDSDS, qm.FFidelity])
def test_a_model_that_was_not_trained_so_is_refused_where_that_is_asked_for(kind):
    maps = np.stack([WEIGHTS[0].numpy()] * 5)
    with pytest.raises(UnsupportedModelError, match="0 of 5 right answers kept"):
        call(kind(least_kept=0.9), AllNeeded(15.5), maps)
    with pytest.raises(UnsupportedModelError, match="0 of 0 right answers"):
        call(kind(least_kept=0.0), AllNeeded(16.5), maps)
    few = {"n_draws": 2} if kind is qm.FFidelity else {}
    checked = kind(least_kept=0.9, **few)
    with pytest.warns(UserWarning) if kind is qm.IDSDS else pytest.MonkeyPatch.context():  # all patches cost the same
        call(checked, AllNeeded(12), maps)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (qm.IDSDS, {"least_kept": 1.5}, "least_kept"),
        (qm.IDSDS, {"remover": "drop"}, "remover"),
        (qm.FFidelity, {"score": "both"}, "score"),
        (qm.FFidelity, {"reads": "logit"}, "reads"),
        (qm.FFidelity, {"alpha": 0}, "alpha"),
        (qm.FFidelity, {"beta": 1}, "beta"),
        (qm.FFidelity, {"sizes": (0, 0.5)}, "sizes"),
        (qm.FFidelity, {"n_draws": 0}, "n_draws"),
    ],
)
def test_options_out_of_range_are_refused(kind, options, words):
    with pytest.raises(OptionError, match=words):
        kind(**options)
