"""What every metric gets from its base: Quantus's call, and nothing left behind."""

import numpy as np
import pytest
import quantus
import torch
from captum.attr import InputXGradient

import quantus_metrics as qm
from captum_vit.errors import CaptumVitError, InputError, ModelStateError, OptionError, TargetError

explain = qm.explain_func(InputXGradient)


@pytest.fixture
def metric():
    return qm.Fidelity(patch_size=8, fractions=(0, 0.3, 0.7, 1))


@pytest.fixture
def maps():
    return np.random.default_rng(1).standard_normal((6, 1, 32, 32), dtype=np.float32)


def test_each_map_is_normalised_by_itself(timm_vit, data, maps, metric):
    together = metric(timm_vit, **data, a_batch=maps)
    louder = maps.copy()
    louder[0] *= 1e6
    with_outlier = qm.Fidelity(patch_size=8, fractions=metric.fractions, normalise=True)
    assert with_outlier(timm_vit, **data, a_batch=louder) == pytest.approx(together, abs=1e-4)


@pytest.mark.slow
def test_each_of_quantus_keywords_is_taken(timm_vit, data, maps):
    metric = qm.Fidelity(
        abs=True,
        normalise=True,
        normalise_func=quantus.normalise_by_max,
        normalise_func_kwargs={"normalise_axes": [1, 2, 3]},
        return_aggregate=True,
        aggregate_func=np.max,
        default_plot_func=lambda: None,
        disable_warnings=True,
        display_progressbar=False,
    )
    (score,) = metric(
        model=timm_vit,
        **data,
        a_batch=maps,
        s_batch=np.ones((6, 1, 32, 32)),
        channel_first=True,
        explain_func=explain,
        explain_func_kwargs={},
        model_predict_kwargs={},
        softmax=False,
        device="cpu",
        batch_size=4,
        custom_batch=list("abcdef"),
    )
    assert score == pytest.approx(max(qm.Fidelity(abs=True)(timm_vit, **data, a_batch=maps)), abs=1e-3)
    with pytest.raises(ValueError, match="Keywords that are read"):
        qm.Fidelity(sigma=3)
    with pytest.raises(ValueError, match="Keywords that are read"):
        metric(timm_vit, **data, a_batch=maps, softmaxx=True)


def test_abs_ranks_the_absolute_map(timm_vit, data, maps):
    signed = qm.Fidelity()(timm_vit, **data, a_batch=np.abs(maps))
    assert qm.Fidelity(abs=True)(timm_vit, **data, a_batch=maps) == signed


def test_softmax_reads_probabilities(timm_vit, data, maps):
    metric = qm.Fidelity(return_curves=True)
    metric(timm_vit, **data, a_batch=maps, softmax=True)
    intact = timm_vit(torch.tensor(data["x_batch"])).softmax(-1)[range(6), data["y_batch"]]
    torch.testing.assert_close(metric.curves["mif"].scores[:, 0], intact.detach())


def test_channels_may_be_last(timm_vit, data, maps, metric):
    first = metric(timm_vit, **data, a_batch=maps)
    last = {**data, "x_batch": np.moveaxis(data["x_batch"], 1, -1)}
    assert metric(timm_vit, **last, a_batch=maps) == first
    assert metric(timm_vit, **last, a_batch=maps, channel_first=False) == first


def test_results_are_where_quantus_keeps_them(timm_vit, data, maps, metric):
    scores = metric(timm_vit, **data, a_batch=maps)
    assert metric.evaluation_scores == scores
    assert all(type(score) is float for score in scores)
    metric(timm_vit, **data, a_batch=maps)
    assert metric.all_evaluation_scores == scores * 2


def test_one_batch_by_quantus_hook(timm_vit, data, maps, metric):
    scores = metric.evaluate_batch(timm_vit, **data, a_batch=maps)
    assert scores == metric(timm_vit, **data, a_batch=maps)


def changed(array, value):
    array = array.copy()
    array[-1] = value
    return array


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"a_batch": lambda d: d["a_batch"][:4]}, "4 entries for 6 samples"),
        ({"a_batch": lambda d: d["a_batch"][..., :31]}, "32"),
        ({"a_batch": lambda d: d["a_batch"].reshape(6, -1)}, r"\(6, 1024\)"),
        ({"a_batch": lambda d: None}, "explain_func"),
        ({"y_batch": lambda d: d["y_batch"][:4]}, "y_batch"),
        ({"y_batch": lambda d: None}, "y_batch"),
        ({"s_batch": lambda d: d["a_batch"][:4]}, "s_batch"),
        ({"x_batch": lambda d: changed(d["x_batch"], np.nan)}, "NaN"),
        (
            {name: lambda d, name=name: d[name][:0] for name in ("x_batch", "y_batch", "a_batch")},
            "At least one",
        ),
    ],
)
def test_bad_input_raises_our_error(timm_vit, data, maps, metric, change, complaint):
    arrays = {**data, "a_batch": maps}
    with pytest.raises(InputError, match=complaint) as caught:
        metric(timm_vit, **{**arrays, **{name: make(arrays) for name, make in change.items()}})
    assert isinstance(caught.value, CaptumVitError)


def test_bad_targets_states_and_options_raise_our_error(timm_vit, data, maps, metric):
    with pytest.raises(TargetError, match="0 to 4"):
        metric(timm_vit, data["x_batch"], data["y_batch"] + 1, maps)
    with pytest.raises(OptionError, match="batch_size"):
        metric(timm_vit, **data, a_batch=maps, batch_size=0)
    with pytest.raises(ModelStateError, match=r"model\.eval"):
        metric(timm_vit.train(), **data, a_batch=maps)


def test_interpretation(capsys, metric):
    metric.interpret_scores()
    assert capsys.readouterr().out.endswith("Higher is better.\n")


@pytest.mark.parametrize("shape", [(6, 3, 32, 32, 1), (3, 32, 32), (32,)])
def test_finite_arrays_of_another_rank_are_told_so(timm_vit, data, metric, shape):
    with pytest.raises(InputError) as error:
        metric(timm_vit, np.ones(shape, dtype=np.float32), data["y_batch"], explain_func=explain)
    assert str(shape) in error.value.got and "NaN" not in str(error.value)


def test_samples_that_are_not_finite_are_named(timm_vit, data, metric):
    x = data["x_batch"].copy()
    x[[1, 4], 0, 0, 0] = np.nan, np.inf
    with pytest.raises(InputError, match=r"sample\(s\) \[1, 4\] of 6"):
        metric(timm_vit, x, data["y_batch"], explain_func=explain)
