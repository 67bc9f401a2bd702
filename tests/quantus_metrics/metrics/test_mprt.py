"""MPRT: which weights are a block's, against a copy that is randomised by hand, and beside Quantus's own."""

import copy
import warnings
from itertools import chain

import numpy as np
import pytest
import quantus
import torch
from captum.attr import InputXGradient
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity as skimage_ssim
from torch import nn
from transformers import AlbertConfig, AlbertForSequenceClassification

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.demo import demo_swin
from captum_vit.description.weights import weights_of_blocks
from captum_vit.errors import InputError, UnsupportedModelError
from captum_vit.trace.run.describe import stream_of
from captum_vit.trace.run.state import undisturbed
from quantus_metrics.benchmark.group import Group
from quantus_metrics.benchmark.measure import Maps, measure
from quantus_metrics.metrics.mprt import rank_correlation, structural_similarity
from quantus_metrics.metrics.passes import Passes
from quantus_metrics.randomised import shuffle, shuffled, weights_kept

EXPLAIN = qm.explain_func(cv.LayerCDAM)
STEPS = ["head", "block 1", "block 0", "embedding"]


def parts(model: nn.Module, x: torch.Tensor) -> dict[str, list[str]]:
    """Names of the weights of each block."""
    with undisturbed(model):
        found = weights_of_blocks(model, stream_of(model, (x,), ()), (x,), ())
    names = {p: name for name, p in model.named_parameters()}
    return {block: [names[p] for p in weights] for block, weights in found.items()}


def fixed(model, inputs, targets, **_):
    """A map that depends on nothing."""
    return np.random.default_rng(0).random((len(inputs), 1, 4, 4))


def scores(metric, model, explain, data, **call):
    return metric(model, **data, explain_func=explain, **call)


def test_every_weight_belongs_to_the_first_block_that_is_made_of_it(timm_vit, data):
    found = parts(timm_vit, torch.tensor(data["x_batch"]))
    wanted = {"block 0": "blocks.0.", "block 1": "blocks.1.", "head": ("norm.", "head.")}
    rest = "cls_token", "pos_embed", "patch_embed."
    for block, start in {"embedding": rest, **wanted}.items():
        assert {*found[block]} == {name for name, _ in timm_vit.named_parameters() if name.startswith(start)}


@pytest.mark.slow
def test_of_windows_and_of_blocks_that_share_all_they_have():
    swin = demo_swin(pretrained=False)
    found = parts(swin, torch.randn(1, 3, 64, 64))
    assert sorted(chain(*found.values())) == sorted(name for name, _ in swin.named_parameters())
    sizes = {"embedding_size": 8, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3}
    albert = AlbertForSequenceClassification(AlbertConfig(vocab_size=20, num_attention_heads=2, **sizes)).eval()
    assert [*parts(albert, torch.randint(5, 20, (1, 6)))] == ["embedding", "block 0", "head"]


@pytest.mark.parametrize("order", ["top_down", "independent"])
def test_it_is_what_copies_randomised_by_hand_say(timm_vit, data, order):
    model, x, y = timm_vit.double(), data["x_batch"].astype(float), data["y_batch"]
    metric = qm.MPRT(order=order, seed=3, return_curves=True)
    found = scores(metric, model, EXPLAIN, {"x_batch": x, "y_batch": y}, batch_size=4)
    assert [*metric.kept] == STEPS
    names, own, generator = parts(model, torch.tensor(x)), EXPLAIN(model, x, y), torch.Generator().manual_seed(3)
    changed = copy.deepcopy(model)
    for step in STEPS:
        changed = changed if order == "top_down" else copy.deepcopy(model)
        for name in names[step]:
            p = changed.get_parameter(name)
            p.data = shuffled(p.data, generator)
        theirs = EXPLAIN(changed, x, y)
        wanted = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(own, theirs, strict=True)]
        assert metric.kept[step].tolist() == pytest.approx(wanted, abs=1e-9), step
    assert found == pytest.approx(torch.stack([*metric.kept.values()]).mean(0).tolist())


def test_what_depends_on_no_weight_is_the_same_map(timm_vit, data):
    for explain in (fixed, qm.explain_func(cv.RandomAttribution)):  # draws, but the same for each model
        for similarity in ("spearman", "ssim"):
            assert scores(qm.MPRT(similarity=similarity), timm_vit, explain, data) == pytest.approx([1] * 6)
    metric = qm.MPRT(order="independent", return_curves=True)
    scores(metric, timm_vit, qm.explain_func(cv.RawAttention), data)
    assert metric.kept["head"].tolist() == pytest.approx([1] * 6)  # attention knows no class
    assert max(metric.kept["embedding"]) < 1


def test_the_smooth_test_averages_maps_of_noisy_copies(timm_vit, data):
    seen, few = [], {name: array[:2] for name, array in data.items()}

    def watched(model, inputs, targets, **_):
        seen.append(inputs - few["x_batch"])
        return np.abs(inputs.sum(1))  # reads no weight, so that all maps are alike

    assert scores(qm.MPRT(n_samples=3, noise=0.2), timm_vit, watched, few) == pytest.approx([1, 1])
    assert len(seen) == 3 * (1 + len(STEPS))
    width = np.ptp(few["x_batch"].reshape(2, -1), axis=1)
    assert seen[0].reshape(2, -1).std(1) == pytest.approx(0.2 * width, rel=0.05)
    assert all(np.array_equal(seen[k], seen[k + 3]) for k in range(3)) and not np.array_equal(seen[0], seen[1])


def test_weights_are_the_same_memory_afterwards_whatever_happens(timm_vit, data):
    before = [(p.data_ptr(), p.clone(), p._version) for p in timm_vit.parameters()]
    calls = []

    def fails(model, inputs, targets, **_):
        calls.append(any(p.data_ptr() != was for p, (was, *_) in zip(timm_vit.parameters(), before, strict=True)))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return EXPLAIN(model, inputs, targets)

    with pytest.raises(KeyboardInterrupt):
        scores(qm.MPRT(), timm_vit, fails, data)
    assert calls == [False, True, True]
    for p, (was, value, version) in zip(timm_vit.parameters(), before, strict=True):
        assert p.data_ptr() == was and torch.equal(p, value) and p._version == version


def test_maps_of_a_randomised_model_that_vary_nowhere_or_are_not_finite(timm_vit, data):
    def after_the_first(value):
        made = []

        def explain(model, inputs, targets, **_):
            made.append(1)
            return fixed(model, inputs, targets) if len(made) == 1 else np.full((len(inputs), 1, 4, 4), value)

        return explain

    for similarity in ("spearman", "ssim"):
        metric = qm.MPRT(similarity=similarity, normalise=True)
        assert scores(metric, timm_vit, after_the_first(0.0), data) == [0.0] * 6
    with pytest.raises(InputError, match="randomised model"):
        scores(qm.MPRT(), timm_vit, after_the_first(np.nan), data)


def test_a_model_without_blocks_is_refused(additive):
    model = additive(torch.randn(2, 4, 4))
    with pytest.raises(UnsupportedModelError):
        qm.MPRT()(model, model.ones(2), np.array([0, 1]), explain_func=qm.explain_func(InputXGradient))


def test_similarities_are_those_of_scipy_and_skimage():
    one, other = torch.randn(2, 3, 1, 9, 8, dtype=torch.float64).round(decimals=1)
    wanted = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(one, other, strict=True)]
    assert rank_correlation(one, other).tolist() == pytest.approx(wanted)
    one, other = (maps / maps.abs().amax((1, 2, 3), keepdim=True) for maps in (one, other))
    ends = [(min(a.min(), b.min()), max(a.max(), b.max())) for a, b in zip(one, other, strict=True)]
    wanted = [
        skimage_ssim(a[0].numpy(), b[0].numpy(), data_range=float(high - low))
        for a, b, (low, high) in zip(one, other, ends, strict=True)
    ]
    assert structural_similarity(3 * one, other / 7).tolist() == pytest.approx(wanted)
    with pytest.raises(InputError, match="3 x 3"):
        structural_similarity(one[..., :2], other[..., :2])


@pytest.mark.slow
def test_quantus_own_test_agrees_on_who_is_worse(timm_vit, data):
    """It goes through modules, and takes other draws; attention that knows no class has 1 at the head in both."""
    theirs = quantus.MPRT(abs=False, normalise=False, disable_warnings=True, layer_order="independent")
    ours = qm.MPRT(order="independent", return_curves=True)
    found = {}
    for name in ("LayerCDAM", "RawAttention"):
        explain = qm.explain_func(cv.METHODS[name])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            by_module = theirs(timm_vit, **data, a_batch=explain(timm_vit, **_named(data)), explain_func=explain)
        scores(ours, timm_vit, explain, data)
        found[name] = by_module["head"], ours.kept["head"].tolist()
    assert all(of_head == pytest.approx([1] * 6) for of_head in found["RawAttention"])
    assert all(np.mean(of_head) < 0.9 for of_head in found["LayerCDAM"])


def _named(data):
    return {"inputs": data["x_batch"], "targets": data["y_batch"]}


def test_a_benchmark_explains_the_randomised_model(timm_vit, data):
    data = {name: array[:2] for name, array in data.items()}
    group = Group(("a", "b"), torch.tensor(data["x_batch"]), data["y_batch"])
    metrics = {"MPRT": qm.MPRT(), "theirs": quantus.MPRT(return_average_correlation=True, disable_warnings=True)}

    def maps(part):
        return Maps(cv.LayerCDAM(timm_vit), {}, part)

    found = {name: list(measure(maps, group, {name: metric}, Passes(timm_vit), 0)) for name, metric in metrics.items()}
    direct = qm.MPRT()(timm_vit, **data, explain_func=maps(group).anew)
    assert [one.score for one in found["MPRT"]] == pytest.approx(direct)
    assert np.mean(direct) < 0.9
    assert all("another model" in str(one.error) for one in found["theirs"])  # its copies are not the method's model


def test_shuffled_weights_are_the_same_numbers():
    weights = nn.Parameter(torch.randn(4, 5))
    own = weights.clone()
    with weights_kept([weights]):
        shuffle([weights], torch.Generator().manual_seed(0))
        assert not torch.equal(weights, own)
        assert torch.equal(weights.flatten().sort()[0], own.flatten().sort()[0])
    assert torch.equal(weights, own)
