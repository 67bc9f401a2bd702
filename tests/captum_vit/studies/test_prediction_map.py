"""Readings of every layer: against their slow twin, and against what the model says itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.errors import InputError, TargetError, UnsupportedModelError
from captum_vit.studies import PerLayer, per_layer
from tests.models import CASES
from tests.references import prediction_map
from tests.references.models import (
    CLASSES,
    DEPTH,
    reference_bert,
    reference_images,
    reference_sentences,
    reference_vit,
)

LABELS = torch.tensor([1, 4])
MEASURES = ("accuracy", "confidence", "entropy")


def close(found: Tensor, wanted: Any) -> None:
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def vit() -> tuple[nn.Module, Tensor, tuple, list[Any]]:
    images = reference_images()
    return reference_vit(layer_scale=True), images, (), list(images)


def bert() -> tuple[nn.Module, Tensor, tuple, list[Any]]:
    ids, mask = reference_sentences()
    return reference_bert(), ids, (mask,), list(zip(ids, mask, strict=True))


@pytest.mark.parametrize("samples", [vit, bert])
def test_readings_equal_their_twin(samples: Any) -> None:
    model, inputs, args, singles = samples()
    found = per_layer(model, (inputs, LABELS, args))
    assert found.reads_cls
    for n, (single, label) in enumerate(zip(singles, LABELS.tolist(), strict=True)):
        for l, (cls, patches) in enumerate(prediction_map.per_layer(model, single, label)):
            for measure in MEASURES:
                close(getattr(found.pooled, measure)[n, l], getattr(cls, measure))
                close(getattr(found.patches, measure)[n, l], getattr(patches, measure))


@pytest.mark.parametrize(
    ("name", "reads_cls"),
    [
        ("timm ViT", True),
        ("timm ViT registers", True),
        ("torchvision ViT", True),
        ("HF BERT", True),
        ("timm ViT distilled", False),
        ("timm ViT mean", False),
        ("timm SigLIP", False),
    ],
)
def test_at_the_last_layer_the_reading_is_the_models(name: str, reads_cls: bool) -> None:
    case = CASES[name]()
    found = per_layer(case.forward_func, (case.inputs, case.target, case.additional_forward_args))
    with torch.no_grad():
        output = case.forward_func(case.inputs, *case.additional_forward_args)
    logits = getattr(output, "logits", output)
    top = logits.topk(2, -1)
    right = (top.indices[:, 0] == torch.tensor(case.target)).float()
    torch.testing.assert_close(found.pooled.accuracy[:, -1], right)
    torch.testing.assert_close(found.pooled.confidence[:, -1], top.values[:, 0] - top.values[:, 1])
    assert found.reads_cls == reads_cls
    assert found.patches.entropy.shape == (3, 3)


def test_right_is_right_and_wrong_is_wrong() -> None:
    model, images = reference_vit(), reference_images()
    said = model(images).argmax(-1)
    assert per_layer(model, (images, said)).pooled.accuracy[:, -1].tolist() == [1, 1]
    assert per_layer(model, (images, (said + 1) % CLASSES)).pooled.accuracy[:, -1].tolist() == [0, 0]
    assert (per_layer(model, (images, said)).pooled.entropy <= math.log(CLASSES)).all()


def test_many_batches_are_one_large_one() -> None:
    model, images = reference_vit(), reference_images(3)
    labels = torch.tensor([0, 3, 2])
    whole = per_layer(model, (images, labels))
    parts = per_layer(model, ([x[None], y[None]] for x, y in zip(images, labels, strict=True)))
    for kind in ("pooled", "patches"):
        for measure in MEASURES:
            close(getattr(getattr(parts, kind), measure), getattr(getattr(whole, kind), measure))


def test_one_pass_for_each_batch() -> None:
    model, images = reference_vit(), reference_images()
    cv.spec_of(model, images)  # the first pass finds the blocks
    passes: list[bool] = []
    model.blocks[0].attn.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    per_layer(model, [(images, LABELS), (images, LABELS)])
    assert passes == [False, False]


def test_a_picture_of_it() -> None:
    found = per_layer(reference_vit(), (reference_images(), LABELS))
    figure = found.plot()
    assert [axes.get_title("left") for axes in figure.axes] == list(MEASURES)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["CLS token", "patches"]
    assert figure.axes[1].lines[0].get_ydata().tolist() == pytest.approx(found.pooled.confidence.mean(0).tolist())
    single = PerLayer(found.pooled, found.patches, reads_cls=False).plot()
    assert single.axes[0].get_legend().get_texts()[0].get_text() == "pooled"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ((reference_images(), None), TargetError),
        (reference_images(), TargetError),
        ((reference_images(), [1]), TargetError),
        ((reference_images(), [1, CLASSES]), TargetError),
        ((reference_images(), [1, -1]), TargetError),
        ((reference_images(), torch.tensor([0.5, 1.0])), TargetError),
        ([], InputError),
        ("images", InputError),
        (["images"], InputError),
        (None, InputError),
        ((reference_images(), LABELS, None, None), InputError),
    ],
)
def test_bad_data_is_refused(data: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        per_layer(reference_vit(), data)


def test_what_has_no_classes_is_refused() -> None:
    model = reference_vit()
    concept = cv.ConceptSimilarity(model, torch.eye(24, dtype=torch.float64)[:3])
    with pytest.raises(UnsupportedModelError, match="PredictionMap"):
        per_layer(concept, (reference_images(), LABELS))


def test_depth_is_every_block() -> None:
    assert per_layer(reference_vit(), (reference_images(), 1)).pooled.accuracy.shape == (2, DEPTH)


def test_half_precision_is_read_as_well() -> None:
    model, images = reference_vit(), reference_images()
    wanted, found = per_layer(model, (images, LABELS)), per_layer(model.bfloat16(), (images, LABELS))
    assert found.reads_cls and found.pooled.entropy.dtype == torch.float32
    assert (found.patches.entropy - wanted.patches.entropy).abs().max() < 0.1
