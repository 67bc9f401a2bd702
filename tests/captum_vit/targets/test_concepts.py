"""Concepts: made of images, near by three measures, and classes where they are the head's own rows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch
from captum.attr import LayerGradientXActivation
from torch import Tensor, nn

import captum_vit as cv
from tests.contracts.pairs import in_float64
from tests.models import CASES
from tests.references import cdam
from tests.references.forward import Pass, forward
from tests.references.models import WIDTH, reference_images, reference_vit

TARGETS = [1, 0]
MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dot": lambda x, c: sum(a * b for a, b in zip(x, c, strict=True)),
    "cosine": lambda x, c: (x * c).sum() / (x.pow(2).sum().sqrt() * c.pow(2).sum().sqrt()),
    "neg_l2": lambda x, c: -(x - c).pow(2).sum().sqrt(),
}


@pytest.fixture
def model() -> nn.Module:
    return reference_vit()


def examples(seed: int, n: int = 3) -> Tensor:
    return reference_images(n, seed)


def mean_embedding(model: nn.Module, images: Tensor) -> Tensor:
    return torch.stack([forward(model, image).embedding.detach() for image in images]).mean(0)


def test_a_concept_is_the_mean_embedding_of_its_images(model: nn.Module) -> None:
    made = cv.ConceptSimilarity.from_images(model, {"stripes": examples(5), "dots": examples(6, 4)})
    wanted = torch.stack([mean_embedding(model, examples(5)), mean_embedding(model, examples(6, 4))])
    torch.testing.assert_close(made.embeddings, wanted, rtol=1e-10, atol=1e-12)
    assert made.names == ["stripes", "dots"]
    assert not made.embeddings.requires_grad


@pytest.mark.parametrize("similarity", MEASURES)
def test_maps_of_concepts_equal_their_twins(model: nn.Module, similarity: str) -> None:
    """Equation 4, by differences, for several concepts at once and a concept of its own for each image."""
    images = reference_images()
    made = cv.ConceptSimilarity.from_images(model, {"a": examples(5), "b": examples(6)}, similarity)
    said, maps = made(images), cv.LayerCDAM(made, output="tokens").attribute(images, target=TARGETS)
    assert said.shape == (2, 2)
    for row, (image, k) in enumerate(zip(images, TARGETS, strict=True)):
        concept, measure = made.embeddings[k], MEASURES[similarity]

        def target(p: Pass, concept: Tensor = concept, measure: Callable = measure) -> Tensor:
            return measure(p.embedding, concept)

        torch.testing.assert_close(said[row, k], target(forward(model, image)))
        torch.testing.assert_close(maps[row], cdam.cdam(model, image, target), rtol=1e-7, atol=1e-9)


HEADS: dict[str, Callable[[nn.Module], nn.Linear]] = {
    "timm ViT": lambda m: m.head,
    "timm ViT mean": lambda m: m.head,
    "timm EVA-02": lambda m: m.head,
    "HF ViT": lambda m: m.classifier,
    "HF DINOv2": lambda m: m.classifier,
    "HF BERT": lambda m: m.classifier,
    "torchvision ViT": lambda m: m.heads.head,
}


@cache
def of_the_rows_of_the_head(name: str) -> cv.ConceptSimilarity:
    model = in_float64(name).forward_func
    return cv.ConceptSimilarity(model, HEADS[name](model).weight)


@pytest.mark.parametrize("method", ["LayerCDAM", "DecompX", "GenAtt"])
@pytest.mark.parametrize("name", HEADS)
def test_rows_of_the_head_are_the_classes(name: str, method: str) -> None:
    case = in_float64(name)
    args = case.additional_forward_args or None
    found, wanted = (
        cv.METHODS[method](f).attribute(case.inputs, target=case.target, additional_forward_args=args)
        for f in (of_the_rows_of_the_head(name), case.forward_func)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_all_concepts_at_once(model: nn.Module) -> None:
    images = reference_images()
    made = cv.ConceptSimilarity(model, torch.randn(4, WIDTH, dtype=torch.float64), "cosine")
    every = cv.LayerCDAM(made).all_classes(images)
    assert every.shape == (2, 4, 4, 4)
    for k in range(4):
        torch.testing.assert_close(every[:, k : k + 1], cv.LayerCDAM(made).attribute(images, target=k))


def test_captum_explains_concepts_too(model: nn.Module) -> None:
    images = reference_images()
    made = cv.ConceptSimilarity.from_images(model, {"a": examples(5), "b": examples(6)}, "neg_l2")
    theirs = LayerGradientXActivation(made, model.blocks[-1].norm1).attribute(images, target=TARGETS)
    ours = cv.LayerCDAM(made, output="tokens").attribute(images, target=TARGETS)
    torch.testing.assert_close(ours, theirs.sum(-1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["timm ViT", "HF DINOv2", "torchvision ViT"])
def test_half_precision(name: str) -> None:
    """Images come in single precision; concepts and maps are found all the same."""
    case = CASES[name]()
    half = copy.deepcopy(case.forward_func).bfloat16()
    found, wanted = (
        cv.ConceptSimilarity.from_images(m, {"all": case.inputs}).embeddings.float() for m in (half, case.forward_func)
    )
    assert (found - wanted).norm() < 0.05 * wanted.norm()
    assert cv.LayerCDAM(cv.ConceptSimilarity(half, found)).attribute(case.inputs, target=0).dtype == torch.float32


def test_what_makes_no_concept_is_refused(model: nn.Module) -> None:
    for wrong in ({}, examples(5), {"none": examples(5)[:0]}, {"nan": examples(5) / 0}):
        with pytest.raises(cv.InputError):
            cv.ConceptSimilarity.from_images(model, wrong)
    for wrong in (torch.randn(WIDTH), [1.0]):
        with pytest.raises(cv.InputError, match="K, D"):
            cv.ConceptSimilarity(model, wrong)
    with pytest.raises(cv.OptionError):
        cv.ConceptSimilarity.from_images(model, {"a": examples(5)}, "l1")
    with pytest.raises(cv.ModelStateError):
        cv.ConceptSimilarity.from_images(model.train(), {"a": examples(5)})
