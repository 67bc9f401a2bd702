"""Heads of several labels and of one logit: what a probability is, in every method that reads one."""

import inspect

import pytest
import timm
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

import captum_vit as cv
from captum_vit.errors import OptionError, UnsupportedModelError

SIZES = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2}
X = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
WITH_SCORE = [name for name, make in cv.METHODS.items() if "score" in inspect.signature(make).parameters]
every_method_with_a_score = pytest.mark.parametrize("name", WITH_SCORE)


def stirred(model: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    for p in model.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    return model.double().eval()


@pytest.fixture
def labels() -> nn.Module:
    config = ViTConfig(**SIZES, num_attention_heads=2, num_labels=4, problem_type="multi_label_classification")
    return stirred(ViTForImageClassification(config))


def timm_model(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}
    return stirred(timm.create_model("vit_tiny_patch16_224", **size, num_classes=outputs))


def test_some_methods_have_a_score():
    assert {"TokenAblation", "PredictionMap", "PredicAtt", "VTranM"} <= set(WITH_SCORE)


@pytest.mark.slow
@every_method_with_a_score
def test_labels_have_a_sigmoid_each(labels: nn.Module, name: str):
    model, make = timm_model(4), cv.METHODS[name]
    for declared, bare in ((labels, labels), (cv.MultiLabel(model), model)):
        scores = cv.Scalar(bare, lambda out: getattr(out, "logits", out).sigmoid())
        torch.testing.assert_close(
            make(declared, score="auto").attribute(X, 1), make(scores, score="logit").attribute(X, 1)
        )
        plain = make(declared, score="logit").attribute(X, 1)
        torch.testing.assert_close(plain, make(bare, score="logit").attribute(X, 1))


@pytest.mark.slow
@every_method_with_a_score
def test_one_logit_stays_raw_and_has_two_classes_where_it_is_declared(name: str):
    model, make = timm_model(1), cv.METHODS[name]
    torch.testing.assert_close(make(model, score="auto").attribute(X, 0), make(model, score="logit").attribute(X, 0))
    two = cv.Scalar(model, lambda z: torch.cat([1 - z.sigmoid(), z.sigmoid()], 1))
    for k in (0, 1):
        torch.testing.assert_close(
            make(cv.TwoClasses(model), score="auto").attribute(X, k), make(two, score="logit").attribute(X, k)
        )
    with pytest.raises(OptionError, match="TwoClasses"):
        make(model, score="prob").attribute(X, 0)


def test_half_precision_keeps_its_slope(labels: nn.Module):
    assert torch.isfinite(cv.VTranM(labels.bfloat16()).attribute(X, 1)).all()


def test_explain_shows_the_sigmoid(labels: nn.Module):
    found = cv.explain(labels, X[:1].float(), target=[0, 3])
    p = labels(X[:1]).logits.sigmoid()[0, [0, 3]]
    assert found.probabilities and found.scores == pytest.approx(p.tolist(), abs=1e-6)
    model = timm_model(1)
    z = model(X[:1]).item()
    both = cv.explain(cv.TwoClasses(model), X[:1].float(), target=[0, 1])
    assert sum(both.scores) == pytest.approx(1) and both.probabilities
    assert both.scores[1] == pytest.approx(torch.tensor(z).sigmoid().item(), abs=1e-6)
    assert cv.explain(cv.TwoClasses(model), X[:1].float()).targets == [int(z > 0)]


def test_two_classes_of_several_outputs_are_refused():
    with pytest.raises(UnsupportedModelError, match="one logit"):
        cv.TwoClasses(timm_model(3))(X)


def test_layers_of_labels_are_refused(labels: nn.Module):
    """Accuracy and entropy over classes mean nothing where several labels are right."""
    with pytest.raises(UnsupportedModelError, match="one is right"):
        cv.studies.prediction_map.per_layer(labels, (X, torch.tensor([0, 1, 2])))
