"""Deletion and insertion: against passes with the rows cut out by hand, at their limits, and what they refuse."""

import math
from functools import partial

import numpy as np
import pytest
import torch

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.errors import InputError, OptionError, TargetError
from quantus_metrics.metrics.deletion import (
    deletion_accuracy,
    deletion_aopc,
    insertion_accuracy,
    insertion_aopc,
)
from quantus_metrics.perturb import Curve, Fill, MaskKeys
from tests.references.forward import embed, read, run, softmax
from tests.references.models import reference_images, reference_vit

BOTH = [qm.Deletion, qm.Insertion]
KINDS = [partial(metric, score=score) for metric in BOTH for score in ("accuracy", "aopc")]
RATIOS = [k / 10 for k in range(1, 10)]


@pytest.fixture
def exact():
    """The reference model, three images, one class that is right and two that may not be, and maps of patches."""
    model, images = reference_vit(), reference_images(3)
    with torch.no_grad():
        answers = model(images).argmax(1)
    y = torch.stack([answers[0], answers[1], (answers[2] + 1) % 5]).numpy()
    return model, images, y, np.random.default_rng(2).standard_normal((3, 4, 4))


def twin(model, image, y: int, relevance, insertion: bool, score: str) -> float:
    """The paper's percentage for one image: each ratio with a pass over the tokens that are kept."""
    with torch.no_grad():
        tokens, net = embed(model, image)[0], read(model)
        whole = softmax(run(net, tokens, torch.ones(len(tokens), dtype=torch.bool)).logits)
        ranked = sorted(range(16), key=lambda i: -relevance.flatten()[i])
        total = 0.0
        for ratio in RATIOS:
            n_gone = math.floor((1 - ratio if insertion else ratio) * 16 + 0.5)
            kept = sorted(ranked[: 16 - n_gone] if insertion else ranked[n_gone:])
            left = tokens[[0, *(1 + i for i in kept)]]
            p = softmax(run(net, left, torch.ones(len(left), dtype=torch.bool)).logits)
            if score == "accuracy":
                total += 1.0 if int(p.argmax()) == y else 0.0
            else:
                total += (whole[y] - p[y]).item()
        percent = 100 * total / len(RATIOS)
        return 100 - percent if insertion == (score == "aopc") else percent


@pytest.mark.parametrize("remover", [None, pytest.param(MaskKeys(), marks=pytest.mark.slow)], ids=repr)
@pytest.mark.parametrize("score", ["accuracy", "aopc"])
@pytest.mark.parametrize("metric", BOTH)
def test_they_are_their_twins(exact, metric, score, remover):
    model, images, y, maps = exact
    slow = [twin(model, images[i], y[i], maps[i], metric is qm.Insertion, score) for i in range(3)]
    made = metric(score=score, remover=remover)
    assert made(model, images.numpy(), y, maps, batch_size=2) == pytest.approx(slow, abs=1e-6)
    assert len(set(slow)) > 1  # the images do differ
    assert all(made.score_range[0] <= one <= made.score_range[1] for one in slow)


def test_functions_by_hand():
    x = torch.tensor([0.1, 0.5, 0.9])
    hit, p, whole = (
        Curve(x, torch.tensor([[1.0, 1.0, 0.0]])),
        Curve(x, torch.tensor([[0.7, 0.4, 0.1]])),
        torch.tensor([0.8]),
    )
    assert deletion_accuracy(hit).tolist() == pytest.approx([100 / 3])
    assert insertion_accuracy(hit).tolist() == pytest.approx([200 / 3])
    assert deletion_aopc(whole, p).tolist() == pytest.approx([40])
    assert insertion_aopc(whole, p).tolist() == pytest.approx([60])
    assert deletion_accuracy(hit, "trapezoid").tolist() == pytest.approx([20])
    assert insertion_accuracy(hit, "trapezoid").tolist() == pytest.approx([60])
    assert deletion_aopc(whole, p, "trapezoid").tolist() == pytest.approx([32])
    assert insertion_aopc(whole, p, "trapezoid").tolist() == pytest.approx([48])


def test_where_nothing_is_gone_it_is_the_model_to_the_last_bit(exact):
    model, images, y, maps = exact
    with torch.no_grad():
        right = (model(images).argmax(1).numpy() == y).astype(float)
    nothing = {"fractions": (0.0, 0.01)}  # of 16 patches: none
    for metric in KINDS:
        found = metric(**nothing)(model, images.numpy(), y, maps)
        made = metric()
        if made.score == "accuracy":
            wanted = 100 * right if isinstance(made, qm.Insertion) else 100 - 100 * right
        else:
            wanted = [100.0] * 3 if isinstance(made, qm.Insertion) else [0.0] * 3
        assert found == list(wanted)


@pytest.mark.parametrize("make", KINDS)
def test_passes(additive, make):
    """Nine, and one of the whole input for a difference; tokens of a real model are tried on one sample first."""
    model = additive(torch.randn(2, 6, 6))
    metric = make(remover=Fill(), return_curves=True)
    metric(model, model.ones(3), np.zeros(3, dtype=int), np.random.rand(3, 6, 6))
    assert model.images == 3 * (9 + (metric.score == "aopc"))
    (curve,) = metric.curves.values()
    assert curve.fractions.tolist() == pytest.approx(RATIOS)
    assert curve.scores.shape == (3, 9)


def test_maps_of_pixels_need_the_size_of_a_patch(timm_vit, data):
    maps = np.random.default_rng(0).standard_normal((6, 4, 4))
    pixels = maps.repeat(8, 1).repeat(8, 2)
    explain = {"explain_func": lambda model, inputs, targets: pixels[: len(inputs)]}
    passes = []
    handle = timm_vit.register_forward_pre_hook(lambda *_: passes.append(1))
    for given_maps in ({"a_batch": pixels}, explain):
        with pytest.raises(InputError, match="patch_size"):
            qm.Deletion()(timm_vit, **data, **given_maps)
    assert passes == []
    handle.remove()
    wanted = qm.Deletion()(timm_vit, **data, a_batch=maps)
    assert qm.Deletion(patch_size=8)(timm_vit, **data, a_batch=pixels) == wanted


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"a_batch": np.full((6, 4, 4), np.nan)}, InputError),
        ({"a_batch": np.ones((6, 4, 4))}, InputError),
        ({"a_batch": np.ones((6, 1, 1))}, InputError),
        ({"a_batch": np.random.rand(6, 5, 5)}, InputError),
        ({"a_batch": None}, InputError),
        ({"y_batch": np.array([0, 1, 2, 3, 4, 5])}, TargetError),
    ],
)
def test_bad_input_is_refused_before_any_pass(timm_vit, data, make, change, error):
    passes = []
    cv.spec_of(timm_vit, torch.as_tensor(data["x_batch"]))  # the first pass finds the blocks
    timm_vit.blocks[0].register_forward_hook(lambda *_: passes.append(1))  # an embedding is no pass
    with pytest.raises(error):
        make()(timm_vit, **{**data, "a_batch": np.random.rand(6, 4, 4), **change})
    assert passes == []


@pytest.mark.parametrize("make", BOTH)
def test_unknown_options(make):
    with pytest.raises(OptionError, match="accuracy"):
        make(score="auc")
    with pytest.raises(OptionError, match="trapezoid"):
        make(average="median")
