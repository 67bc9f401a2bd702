"""On scenes whose truth is known: the mask beats CDAM beats a random map beats the inverted mask, everywhere."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from quantus.helpers.enums import ScoreDirection
from torch.nn import functional as F

import captum_vit as cv
import quantus_metrics as qm
from captum_vit import demo
from quantus_metrics.metrics.box_sensitivity import box_correlation
from quantus_metrics.perturb.box import box_changes, draw_boxes

STEPS = (0, 0.1, 0.25, 0.5, 1)
RANKING = ("mask", "CDAM", "random", "inverted mask")


class Known:
    """A data set: images, the class of one of their digits, and maps of four qualities."""

    def __init__(self, n: int, n_digits: int) -> None:
        scenes = demo.digit_scenes(n, n_digits=n_digits, seed=11)
        self.model, self.x, self.y = demo.demo_vit(), scenes.images, scenes.digits[:, 0]
        mask = F.avg_pool2d(scenes.masks[:, :1].float(), 8)
        cdam = cv.LayerCDAM(self.model)
        maps = [cdam.attribute(x, target=y) for x, y in zip(self.x.split(50), self.y.split(50), strict=True)]
        random = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
        self.maps = dict(zip(RANKING, (mask, torch.cat(maps), random, -mask), strict=True))

    def scores(self, metric: qm.metrics.TokenMetric) -> dict[str, list[float]]:
        """By map, turned so that higher is better."""
        sign = 1 if metric.score_direction is ScoreDirection.HIGHER else -1
        return {
            name: [
                sign * one for one in metric(self.model, self.x.numpy(), self.y.numpy(), maps.numpy(), batch_size=50)
            ]
            for name, maps in self.maps.items()
        }

    def box_correlations(self) -> dict[str, list[float]]:
        """Mean correlation; the passes serve all four maps."""
        boxes = draw_boxes((64, 64), (8, 24, 40), 10)
        changes = torch.cat(
            [box_changes(self.model, x, y, boxes) for x, y in zip(self.x.split(50), self.y.split(50), strict=True)]
        )
        return {
            name: box_correlation(maps, boxes, changes, (64, 64)).mean(1).tolist() for name, maps in self.maps.items()
        }


def in_order(scores: dict[str, list[float]], apart: bool) -> None:
    """The means fall from map to map; if `apart`, their intervals do not touch either."""
    found = [qm.summarise(scores[name], n_resamples=999) for name in RANKING]
    told = dict(zip(RANKING, map(str, found), strict=True))
    print(told)
    for better, worse in pairwise(found):
        assert better.low > worse.high if apart else better.mean > worse.mean, told


@pytest.mark.parametrize("n", [pytest.param(30, marks=pytest.mark.slow), pytest.param(500, marks=pytest.mark.full)])
@pytest.mark.parametrize("metric", ["fidelity", "boxes", "aopc", "log odds", "accuracy", "deletion"])
def test_faithfulness(metric, n):
    known = Known(n, n_digits=1 if metric in ("aopc", "log odds", "accuracy") else 2)
    in_order(
        {
            "fidelity": lambda: known.scores(qm.Fidelity(fractions=STEPS)),
            "boxes": known.box_correlations,
            "aopc": lambda: known.scores(qm.AOPC(fractions=STEPS)),
            "log odds": lambda: known.scores(qm.LogOdds(fractions=STEPS)),
            "deletion": lambda: known.scores(qm.Deletion(score="aopc", fractions=STEPS[1:-1])),
            "accuracy": lambda: known.scores(qm.PerturbationAccuracy(score="difference", fractions=STEPS[1:-1])),
        }[metric](),
        apart=n >= 500,
    )


@pytest.mark.parametrize("n", [pytest.param(30, marks=pytest.mark.slow), pytest.param(500, marks=pytest.mark.full)])
def test_insertion(n):
    """Probabilities of two digits compete: the rival's patches must come last, and a mask alone does not say so.

    All patches beside the digit are equal in its mask, and go back in the order of reading; CDAM leaves the rival for
    the end. So the mask beats CDAM by little. What beats it is the mask less the rival's.
    """
    known = Known(n, n_digits=2)
    rival = F.avg_pool2d(demo.digit_scenes(n, n_digits=2, seed=11).masks[:, 1:].float(), 8)
    known.maps |= {"mask": known.maps["mask"] - rival, "inverted mask": rival - known.maps["mask"]}
    in_order(known.scores(qm.Insertion(score="aopc", fractions=STEPS[1:-1])), apart=n >= 500)


@pytest.mark.slow
def test_two_classes_and_where_they_are():
    known = Known(50, n_digits=2)
    scenes = demo.digit_scenes(50, n_digits=2, seed=11)
    other = cv.LayerCDAM(known.model).attribute(known.x, target=scenes.digits[:, 1])
    delta = qm.ClassDiscrimination(qm.Fidelity(fractions=STEPS))
    arrays = {"x_batch": known.x.numpy(), "y_batch": known.y.numpy()}
    delta(known.model, **arrays, a_batch=known.maps["CDAM"].numpy(), custom_batch=other.numpy())
    assert delta.summary().low > 0
    own = scenes.masks[:, :1].numpy()
    for metric in (qm.Segmentation(), qm.Segmentation(score="ap"), qm.GridPointing()):
        scores = {}
        for name, maps in known.maps.items():
            scores[name] = metric(known.model, **arrays, a_batch=maps.numpy(), s_batch=own)
        assert all(np.mean(scores[a]) > np.mean(scores[b]) for a, b in pairwise(RANKING))
