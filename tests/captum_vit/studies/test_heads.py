"""Agreement of heads with the prediction map: the inner parts of PredicAtt, laid open."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import captum_vit as cv
from captum_vit.demo import demo_vit, digit_scenes
from captum_vit.errors import InputError, OptionError, TargetError
from captum_vit.studies import MostSimilarLayers, head_agreement, most_similar_layers
from tests.models import CASES
from tests.references.forward import forward
from tests.references.models import (
    DEPTH,
    HEADS,
    reference_bert,
    reference_images,
    reference_sentences,
    reference_vit,
)
from tests.references.prediction_map import head_weights, prediction_map, similarities

TARGETS = [1, 4]


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_similarities_and_weights_equal_their_twins(kind: str, similarity: str) -> None:
    model = reference_vit() if kind == "vit" else reference_bert()
    ids, mask = reference_sentences()
    inputs, args = (reference_images(), None) if kind == "vit" else (ids, mask)
    singles: Any = inputs if kind == "vit" else zip(ids, mask, strict=True)
    found = head_agreement(model, inputs, TARGETS, args, layer=1, similarity=similarity, temperature=0.5)
    assert found.targets == TARGETS
    for n, (single, c) in enumerate(zip(singles, TARGETS, strict=True)):
        p, psi = forward(model, single), prediction_map(model, single, c, layer=1)
        close(found.similarity[n], similarities(p, psi, similarity))
        close(found.weights[n], head_weights(p, psi, similarity, temperature=0.5))
        A = torch.stack([block.a[:, 0].detach() for block in p.blocks])
        close(found.attention[n].flatten(2), A if kind == "bert" else A[..., 1:])
        close(found.prediction[n].flatten(), psi if kind == "bert" else psi[1:])


@pytest.mark.parametrize("name", ["timm ViT", "timm SigLIP", "timm ViT registers", "HF BERT", "HF CLIP"])
def test_weights_sum_to_one_over_all_heads_of_all_layers(name: str) -> None:
    case = CASES[name]()
    found = head_agreement(case.forward_func, case.inputs, case.target, case.additional_forward_args)
    torch.testing.assert_close(found.weights.sum((1, 2)), torch.ones(3))
    assert found.similarity.shape[:2] == (3, 3)


def test_weighted_attention_times_the_prediction_is_predic_att() -> None:
    model, images = reference_vit(), reference_images()
    found = head_agreement(model, images, TARGETS)
    attended = torch.einsum("blh,blhij->bij", found.weights, found.attention)
    close((attended * found.prediction).unsqueeze(1), cv.PredicAtt(model).attribute(images, target=TARGETS))


def test_without_a_target_the_prediction_is_asked_about() -> None:
    model, images = reference_vit(), reference_images()
    said = model(images).argmax(-1).tolist()
    found = head_agreement(model, images)
    assert found.targets == said
    close(found.similarity, head_agreement(model, images, said).similarity)


def test_of_a_head_that_reads_several_rows_each_sample_has_those_of_its_prediction() -> None:
    model, images = demo_vit(pooling="mean").double(), digit_scenes(4).images.double()
    predicted = model(images).argmax(-1).tolist()
    assert len(set(predicted)) > 1
    found = head_agreement(model, images)
    close(found.similarity, head_agreement(model, images, predicted).similarity)


def test_layers_are_counted_by_their_most_similar_head() -> None:
    model, images = reference_vit(), reference_images(5)
    found = most_similar_layers(model, [images[:2], images[2:]])
    alpha = head_agreement(model, images).similarity
    for similarity, (layer, head) in zip(alpha, found.heads.tolist(), strict=True):
        assert similarity[layer, head] == similarity.max()
    assert found.counts.tolist() == [(found.heads[:, 0] == layer).sum().item() for layer in range(DEPTH)]
    assert found.counts.sum() == 5
    asked = most_similar_layers(model, (images, [1] * 5), similarity="cosine")
    best = head_agreement(model, images, 1, similarity="cosine").most_similar
    assert torch.equal(asked.heads, best)


@pytest.mark.slow
def test_pictures() -> None:
    found = head_agreement(reference_vit(), reference_images())
    alone = found.plot(sample=1)
    over = found.plot(torch.rand(3, 32, 32))
    titles = [[axes.get_title() for axes in figure.axes if axes.get_title()] for figure in (alone, over)]
    assert titles == [["prediction map"], ["input", "prediction map"]]
    for figure in (alone, over):
        (tiles,) = (axes for axes in figure.axes if len(axes.get_yticks()) == DEPTH and axes.images)
        assert [label.get_text() for label in tiles.get_xticklabels()] == [str(head) for head in range(HEADS)]
        figure.canvas.draw()
    bars = MostSimilarLayers(torch.tensor([2, 0, 5]), torch.zeros(7, 2)).plot()
    assert [bar.get_height() for bar in bars.axes[0].patches] == [2, 0, 5]


def test_what_cannot_be_is_refused() -> None:
    model, images = reference_vit(), reference_images()
    with pytest.raises(OptionError):
        head_agreement(model, images, similarity="l2")
    with pytest.raises(TargetError):
        head_agreement(model, images, 7)
    with pytest.raises(InputError):
        most_similar_layers(model, [])
    ids, mask = reference_sentences()
    with pytest.raises(InputError, match="text"):
        head_agreement(reference_bert(), ids, 1, mask).plot()
