"""What must hold of prediction maps and PredicAtt, whatever the weights; and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.errors import LayerError, OptionError
from tests.references.forward import forward
from tests.references.models import (
    CLASSES,
    HEADS,
    reference_bert,
    reference_images,
    reference_sentences,
    reference_vit,
)
from tests.references.prediction_map import prediction_map, similarities

TARGETS = [1, 4]
TOKENS = {"output": "tokens"}


@pytest.fixture
def model() -> nn.Module:
    return reference_vit()


@pytest.fixture
def images() -> Tensor:
    return reference_images()


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_without_attention_predic_att_is_the_prediction_map(model: nn.Module, images: Tensor) -> None:
    ours = cv.PredicAtt(model, 1, attention="none").attribute(images, target=TARGETS)
    close(ours, cv.PredictionMap(model, 1).attribute(images, target=TARGETS))


def test_predic_att_is_its_two_halves_multiplied(model: nn.Module, images: Tensor) -> None:
    for attention in ("chosen", "mean"):
        whole = cv.PredicAtt(model, attention=attention).attribute(images, target=TARGETS)
        attended = cv.PredicAtt(model, attention=attention, prediction=False).attribute(images, target=TARGETS)
        close(whole, attended * cv.PredictionMap(model).attribute(images, target=TARGETS))


def test_a_hot_softmax_takes_the_mean_of_all_attention(model: nn.Module, images: Tensor) -> None:
    hot = cv.PredicAtt(model, temperature=1e15).attribute(images, target=TARGETS)
    close(hot, cv.PredicAtt(model, attention="mean").attribute(images, target=TARGETS))


def test_a_cold_softmax_takes_the_head_that_agrees_most(model: nn.Module, images: Tensor) -> None:
    cold = cv.PredicAtt(model, prediction=False, temperature=1e-9, **TOKENS).attribute(images, target=TARGETS)
    for row, image, c in zip(cold, images, TARGETS, strict=True):
        p = forward(model, image)
        layer, head = divmod(int(similarities(p, prediction_map(model, image, c)).argmax()), HEADS)
        close(row, p.blocks[layer].a[head, 0].detach())


def test_the_mean_attention_of_the_last_block_is_raw_attention(model: nn.Module, images: Tensor) -> None:
    last = cv.PredicAtt(model, attention="mean", prediction=False, attention_layers=[-1])
    close(last.attribute(images, target=TARGETS), cv.RawAttention(model).attribute(images))


def test_where_every_token_reads_alike_attention_is_all_there_is(model: nn.Module, images: Tensor) -> None:
    """Psi = k: weights follow 1 - A[CLS, CLS], and PredicAtt is k times the chosen attention."""
    with torch.no_grad():
        model.head.weight[1] *= 1e-14  # of a row that it does not read at all there is no attention
    k = model.head.bias[1].item()
    options: dict[str, Any] = {"score": "logit", "output": "tokens"}
    attended = cv.PredicAtt(model, prediction=False, **options).attribute(images, target=1)
    close(cv.PredicAtt(model, **options).attribute(images, target=1), k * attended)
    for row, image in zip(attended, images, strict=True):
        A = torch.cat([block.a[:, 0].detach() for block in forward(model, image).blocks])  # (L*H, N)
        close(row, (k * (1 - A[:, 0])).softmax(0) @ A)


@pytest.mark.parametrize("options", [{}, {"similarity": "cosine"}, {"attention": "mean"}, {"prediction": False}])
def test_all_classes_at_once_are_each_class_alone(model: nn.Module, images: Tensor, options: dict) -> None:
    method = cv.PredicAtt(model, **options)
    every = method.all_classes(images)
    assert every.shape == (2, CLASSES, 4, 4)
    for c in range(CLASSES):
        close(every[:, c : c + 1], method.attribute(images, target=c))


def test_all_classes_of_a_padded_text() -> None:
    model, (ids, mask) = reference_bert(), reference_sentences()
    every = cv.PredicAtt(model).all_classes(ids, mask)
    assert every.shape == (*ids.shape, CLASSES)
    assert not every[mask == 0].any()
    close(every[..., 2], cv.PredicAtt(model).attribute(ids, 2, mask))


def test_one_pass_and_no_graph(model: nn.Module, images: Tensor) -> None:
    cv.spec_of(model, images)  # the first pass finds the blocks
    passes: list[bool] = []
    model.blocks[0].attn.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    cv.PredicAtt(model).all_classes(images)
    assert passes == [False]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"attention": "max"}, OptionError),
        ({"similarity": "l2"}, OptionError),
        ({"attention": "none", "prediction": False}, OptionError),
        ({"temperature": 0.0}, OptionError),
        ({"temperature": math.nan}, OptionError),
        ({"attention_layers": []}, OptionError),
        ({"attention_layers": [HEADS]}, LayerError),  # as many blocks as heads: 0, 1, 2
    ],
)
def test_what_cannot_be_is_refused(model: nn.Module, images: Tensor, options: dict, error: type) -> None:
    with pytest.raises(error):
        cv.PredicAtt(model, **options).attribute(images, target=1)


@pytest.mark.parametrize("method", [cv.PredictionMap, cv.PredicAtt])
def test_without_positions_maps_move_with_the_patches(method: type, model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        model.pos_embed[:, 1:] = 0
    order = torch.randperm(16)
    patches = images.unfold(2, 8, 8).unfold(3, 8, 8)  # shape: (2, 3, 4, 4, 8, 8)
    moved = patches.flatten(2, 3)[:, :, order].unflatten(2, (4, 4)).transpose(3, 4).reshape_as(images)
    wanted = method(model).attribute(images, target=TARGETS).flatten(1)[:, order]
    close(method(model).attribute(moved, target=TARGETS).flatten(1), wanted)


def test_only_the_dot_product_feels_the_scale_of_the_prediction_map(model: nn.Module, images: Tensor) -> None:
    def attended(similarity: str) -> Tensor:
        method = cv.PredicAtt(model, score="logit", similarity=similarity, prediction=False, **TOKENS)
        return method.attribute(images, target=TARGETS)

    before = {similarity: attended(similarity) for similarity in ("dot", "cosine")}
    with torch.no_grad():
        model.head.weight.mul_(9)
        model.head.bias.mul_(9)
    close(attended("cosine"), before["cosine"])
    assert not torch.allclose(attended("dot"), before["dot"], rtol=1e-2)


@pytest.mark.parametrize("method", [cv.PredictionMap, cv.PredicAtt])
def test_a_prediction_map_takes_one_pass_and_no_graph(method: type, model: nn.Module, images: Tensor) -> None:
    cv.spec_of(model, images)  # the first pass finds the blocks
    graphs: list[bool] = []
    model.blocks[0].attn.register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    method(model).attribute(images, target=TARGETS)
    assert graphs == [False]
