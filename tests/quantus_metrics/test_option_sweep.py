"""A sweep is the metric's own scores, value by value, on the same images and the same draws."""

from __future__ import annotations

import numpy as np
import pytest
import quantus
import torch
from quantus.helpers.enums import ScoreDirection

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.demo import demo_vit, digit_scenes
from captum_vit.errors import InputError, OptionError
from quantus_metrics.option_sweep import sweep_option
from quantus_metrics.statistics import summarise


class Known(qm.Fidelity):
    """A metric whose scores are known: the map's first value, and what it was called with."""

    name = "Known"

    def __call__(self, model, x_batch, y_batch, explain_func, explain_func_kwargs, **call):
        self.calls = [*getattr(self, "calls", []), (len(x_batch), call)]
        maps = explain_func(model=model, inputs=x_batch, targets=y_batch, **explain_func_kwargs)
        return maps[:, 0, 0, 0].tolist()


def named(model, inputs, targets, shift, factor=1.0):
    """Maps that say which image they are of, with an option added to it."""
    return np.broadcast_to(factor * inputs[:, :1] + shift, (len(inputs), 1, *inputs.shape[2:]))


X, Y = np.arange(6.0, dtype=np.float32).repeat(48).reshape(6, 3, 4, 4), np.zeros(6, dtype=int)


def swept(values=(0, 3, -1), metric=None, explain=named, **options):
    model = torch.nn.Identity().eval()
    options = {"display_progressbar": False, **options}
    return sweep_option(metric or Known(), explain, model, X, Y, "shift", values, **options)


def test_scores_are_the_metrics_own_value_by_value():
    found = swept(explain_func_kwargs={"factor": 2.0})
    assert found.scores.tolist() == [[2.0 * i + shift for i in range(6)] for shift in (0, 3, -1)]
    assert [summary.mean for summary in found.means] == [5, 8, 4]
    assert (found.best, found.values, found.metric, found.option) == (3, (0, 3, -1), "Known", "shift")


def test_lower_may_be_better():
    metric = Known()
    metric.score_direction = ScoreDirection.LOWER
    found = swept(metric=metric)
    assert found.best == -1
    assert [(lag.mean, lag.low, lag.high) for lag in found.behind] == [(1, 1, 1), (4, 4, 4), (0, 0, 0)]


def test_intervals_are_those_of_the_means():
    found = swept(confidence=0.8, seed=3)
    assert found.means == tuple(summarise(row, confidence=0.8, seed=3) for row in found.scores.numpy())


def test_values_are_compared_image_by_image():
    """A shift that is small beside the spread of images, yet the same for each, is told from the best."""
    found = swept((0, 0.01))
    assert found.means[0].high > found.means[1].low
    assert found.as_good == [0.01] and found.behind[0].high == pytest.approx(0.01, rel=1e-4)

    def noisy(model, inputs, targets, shift):
        return named(model, inputs, targets, shift * np.array([1, -1, 1, -1, 1, -1])[: len(inputs), None, None, None])

    assert swept((0, 0.5), explain=noisy).as_good == [0, 0.5]


def test_images_without_a_score_are_left_out_under_every_value():
    def lost(model, inputs, targets, shift):
        maps = named(model, inputs, targets, shift).copy()
        maps[inputs[:, 0, 0, 0] == shift] = np.nan
        return maps

    found = swept((0, 5), explain=lost)
    assert [summary.mean for summary in found.means] == [2.5, 7.5]
    assert found.scores.isnan().sum() == 2


def test_batches_and_masks_go_together():
    metric = Known()
    found = swept((0, 1), metric=metric, batch_size=4, s_batch=np.arange(6), softmax=True)
    assert found.scores.shape == (2, 6)
    assert [(n, call["s_batch"].tolist(), call["softmax"]) for n, call in metric.calls] == [
        (4, [0, 1, 2, 3], True), (2, [4, 5], True)] * 2  # fmt: skip


@pytest.fixture(scope="module")
def scenes():
    return digit_scenes(6, n_digits=2, seed=11)


@pytest.mark.slow
def test_the_noise_of_smooth_cdam(scenes, capsys):
    """The paper's use: few samples and scenes here."""
    metric, model = qm.Fidelity(patch_size=8, fractions=(0, 0.2, 0.5, 1)), demo_vit()
    explain, some = qm.explain_func(cv.LayerSmoothCDAM), {"n_samples": 4}
    before = torch.get_rng_state()
    found = qm.sweep_option(
        metric, explain, model, scenes.images, scenes.label, "stdev", [0.0, 0.5, 1.0], explain_func_kwargs=some, seed=5
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert "stdev=1.0: 100%" in capsys.readouterr().err
    assert found.best == found.values[int(found.scores.mean(1).argmax())]
    x, y = scenes.images.numpy(), scenes.label.numpy()
    for value, scores in zip(found.values, found.scores.tolist(), strict=True):
        torch.manual_seed(5)
        assert metric(model, x, y, explain_func=explain, explain_func_kwargs={**some, "stdev": value}) == scores
    plain = metric(model, x, y, explain_func=qm.explain_func(cv.LayerCDAM))
    assert found.scores[0].tolist() == pytest.approx(plain, rel=1e-3)


def test_any_option_by_any_metric_of_quantus(scenes):
    """An option of the constructor, strings as values, a metric that is not ours."""

    def under(model, inputs, targets, rule, **_):
        return qm.explain_func(lambda m: cv.LayerCDAM(m, rule=rule))(model, inputs, targets)

    metric = quantus.Sparseness(disable_warnings=True)
    found = qm.sweep_option(
        metric, under, demo_vit(), scenes.images, scenes.label, "rule", ["grad", "frozen"], display_progressbar=False
    )
    assert found.scores.shape == (2, 6) and found.best in ("grad", "frozen")
    (axes,) = found.plot().axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["grad", "frozen"]


def test_pictures_and_words():
    found = swept()
    (axes,) = found.plot().axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("shift", "Known")
    assert [text.get_text() for text in axes.texts] == ["best: 3"]
    places = axes.collections[-1].get_offsets()
    assert places.tolist() == [[0, 2.5], [3, 5.5], [-1, 1.5]]
    lines = str(found).splitlines()
    assert "n = 6" in lines[1] and [line.endswith("best") for line in lines] == [False, False, True, False]


WRONG = {
    "no values": ({"values": []}, OptionError),
    "a value twice": ({"values": [0, 1, 0]}, OptionError),
    "an option that is fixed": ({"explain_func_kwargs": {"shift": 1}}, OptionError),
    "a batch of none": ({"batch_size": 0}, OptionError),
    "certainty": ({"confidence": 1.0}, OptionError),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused(what):
    options, error = WRONG[what]
    with pytest.raises(error) as refused:
        swept(explain=None, **options)  # before anything is explained
    assert refused.value.got


def test_images_that_cannot_be_swept(scenes):
    for x, y in ((X[:1], Y[:1]), (X, Y[:5]), (X, np.zeros((6, 2)))):
        with pytest.raises(InputError, match="two images"):
            sweep_option(Known(), named, torch.nn.Identity(), x, y, "shift", [0, 1])
    with pytest.raises(InputError, match="two images"):
        swept((0, float("nan")))
    with pytest.raises(InputError, match="One score"):
        swept((0, 1), metric=Aggregated())


class Aggregated(Known):
    def __call__(self, *args, **kwargs):
        return [float(np.mean(super().__call__(*args, **kwargs)))]


def test_a_value_that_is_refused_is_refused_before_the_work(scenes):
    asked = []

    class Counting(Known):
        def __call__(self, *args, **kwargs):
            asked.append(1)
            return super().__call__(*args, **kwargs)

    with pytest.raises(cv.OptionError, match="stdev"):
        sweep_option(
            Counting(), qm.explain_func(cv.LayerSmoothCDAM), demo_vit(), scenes.images, scenes.label, "stdev", [0.1, -1]
        )
    assert not asked
