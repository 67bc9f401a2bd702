"""What a metric reads of a head with several labels, and of one with a single logit, against twins with a sigmoid."""

import math
from functools import partial

import numpy as np
import pytest
import timm
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.errors import InputError, TargetError
from captum_vit.models.output import probability_of
from quantus_metrics.metrics import METRICS
from quantus_metrics.perturb import Fill
from tests.malformed.bad import BERT, IDS, MASK
from tests.quantus_metrics import twins
from tests.quantus_metrics.metrics.test_every_metric import small

STEPS = (0.25, 0.5, 0.75)
SIZES = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2}
X = np.random.default_rng(3).standard_normal((8, 3, 32, 32))
MAPS = np.random.default_rng(4).standard_normal((8, 4, 4))
BLACK = partial(Fill, -1.0)


def stirred(model: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    for p in model.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    return model.double().eval()


def hugging_face(outputs: int, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    return stirred(ViTForImageClassification(ViTConfig(**SIZES, num_attention_heads=2, num_labels=outputs, **kwargs)))


def timm_model(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}
    return stirred(timm.create_model("vit_tiny_patch16_224", **size, num_classes=outputs))


class Named(nn.Module):
    """A head that nobody can read: whose outputs are known by running it alone."""

    def __init__(self, model: nn.Module, flat: bool = False):
        super().__init__()
        self.inner, self.flat = model, flat
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.inner(x)
        return scores.squeeze(-1) if self.flat else scores


LABELS = np.array([0, 1, 2, 3, 3, 2, 1, 0])
SIGNS = np.array([0, 1, 1, 0, 1, 0, 0, 1])
HEADS = {
    "labels, Hugging Face": (hugging_face(4, problem_type="multi_label_classification"), LABELS),
    "labels, timm": (cv.MultiLabel(timm_model(4)), LABELS),
    "one logit, timm": (timm_model(1), SIGNS),
    "one logit, Hugging Face": (hugging_face(1), SIGNS),
    "one logit, any": (Named(timm_model(1)), SIGNS),
    "one logit, flat": (Named(timm_model(1), flat=True), SIGNS),
    "one logit, declared": (cv.TwoClasses(Named(timm_model(1))), SIGNS),
}
every_head = pytest.mark.parametrize(("model", "y"), HEADS.values(), ids=HEADS)


def scores_of(model: nn.Module):
    """One image at a time, from the model inside of what declares it."""

    @torch.no_grad()
    def ask(image: np.ndarray) -> np.ndarray:
        inner = model.model if isinstance(model, cv.MultiLabel | cv.TwoClasses) else model
        found = inner(torch.tensor(image)[None])
        return np.atleast_1d(getattr(found, "logits", found)[0].numpy())

    return ask


def along(model, y, read, least_first=False):
    """For each sample what is read of the whole image, and at each step."""
    return [
        twins.read_along(scores_of(model), X[i], MAPS[i], STEPS, -1.0, lambda z, i=i: read(z)[y[i]], least_first)
        for i in range(len(X))
    ]


def answers(logits: np.ndarray) -> np.ndarray:
    return np.array([float(p > 0.5) for p in twins.sigmoids(logits)])


def mean(values):
    return sum(values) / len(values)


OF_PROBABILITIES = {
    "AOPC": (qm.AOPC, {}, False, lambda p, later: mean([p - q for q in later])),
    "LogOdds": (qm.LogOdds, {}, False, lambda p, later: mean([math.log(q / p) for q in later])),
    "Deletion": (qm.Deletion, {"score": "aopc"}, False, lambda p, later: 100 * mean([p - q for q in later])),
    "Insertion": (qm.Insertion, {"score": "aopc"}, True, lambda p, later: 100 - 100 * mean([p - q for q in later])),
}
OF_ANSWERS = {
    "PerturbationAccuracy": (
        qm.PerturbationAccuracy,
        {"score": "positive", "include_zero": False},
        False,
        lambda _, hit: 25 * (hit[0] / 2 + hit[1] + hit[2] / 2),
    ),
    "Deletion": (qm.Deletion, {}, False, lambda _, hit: 100 - 100 * mean(hit)),
    "Insertion": (qm.Insertion, {}, True, lambda _, hit: 100 * mean(hit)),
}


@pytest.mark.slow
@every_head
@pytest.mark.parametrize(("kind", "options", "least", "twin"), OF_PROBABILITIES.values(), ids=OF_PROBABILITIES)
def test_a_probability_is_a_sigmoid(model, y, kind, options, least, twin):
    slow = [twin(p, later) for p, later in along(model, y, twins.sigmoids, least)]
    found = kind(remover=BLACK(), fractions=STEPS, **options)(model, X, y, MAPS)
    assert found == pytest.approx(slow, abs=1e-9)
    assert np.std(found) > 1e-4, "constant, whatever the model says"


@pytest.mark.slow
@every_head
@pytest.mark.parametrize(("kind", "options", "least", "twin"), OF_ANSWERS.values(), ids=OF_ANSWERS)
def test_an_answer_is_a_probability_above_a_half(model, y, kind, options, least, twin):
    slow = [twin(p, later) for p, later in along(model, y, answers, least)]
    found = kind(remover=BLACK(), fractions=STEPS, **options)(model, X, y, MAPS)
    assert found == pytest.approx(slow, abs=1e-9)
    assert len(set(found)) > 1, "constant, whatever the model says"


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("head", ["labels, Hugging Face", "one logit, declared"])
def test_every_metric_takes_maps_that_are_made_on_the_way(head, name):
    model, y = HEADS[head]
    masks = np.zeros((4, 1, 32, 32))
    masks[:, :, 8:24, 8:24] = 1
    explain, x, wrong = qm.explain_func(cv.VTranM), X[:4], (y[:4] + 1) % (2 if y is SIGNS else 4)
    given = {"s_batch": masks, "explain_func": explain, "custom_batch": wrong}
    made = explain(model, x, y[:4])
    before = small(name)(model, x, y[:4], a_batch=made, **given)
    after = small(name)(model, x, y[:4], **given, batch_size=3)
    assert after == pytest.approx(before, abs=1e-6) and np.std(before) > 0


@pytest.mark.slow
@pytest.mark.parametrize("head", ["one logit, timm", "one logit, Hugging Face"])
@pytest.mark.parametrize("kind", [qm.AOPC, partial(qm.Deletion, patch_size=8), qm.PerturbationAccuracy])
def test_maps_of_both_classes_are_made_of_one_logit(head, kind):
    """The negative class's map is that of the negative logit."""
    model, y = HEADS[head]
    explain = qm.explain_func(cv.LayerCDAM)
    made = np.stack([explain(cv.TwoClasses(model), X, np.full(8, k)) for k in (0, 1)])[y, np.arange(8)]
    np.testing.assert_allclose(explain(cv.TwoClasses(model), X, np.zeros(8, int)), -cv_map(model), atol=1e-9)
    remover = {"remover": BLACK()}
    assert kind(**remover)(model, X, y, explain_func=explain) == kind(**remover)(model, X, y, made)


def cv_map(model: nn.Module) -> np.ndarray:
    return cv.LayerCDAM(model).attribute(torch.tensor(X), 0).repeat_interleave(8, 2).repeat_interleave(8, 3).numpy()


def test_what_is_no_class_is_refused_by_name():
    model, y = Named(timm_model(1)), np.zeros(8, int)
    explain = qm.explain_func(cv.LayerCDAM)
    for kind in (qm.AOPC, qm.LogOdds, qm.PerturbationAccuracy):
        with pytest.raises(InputError, match="TwoClasses"):  # are these maps of the output, or of a negative class?
            kind(remover=BLACK())(model, X, y, explain_func=explain)
    for raw in (cv.Scalar(model, lambda z: z), hugging_face(1, problem_type="regression")):
        assert np.std(qm.AOPC(remover=BLACK())(raw, X, y, MAPS)) > 1e-4, "a raw score is read as it is"
        for kind, call in ((qm.AOPC, {"softmax": True}), (qm.PerturbationAccuracy, {}), (qm.Deletion, {})):
            with pytest.raises(InputError, match="Outputs of classes"):
                kind(remover=BLACK())(raw, X, y, MAPS, **call)
    with pytest.raises(TargetError, match="TwoClasses"):
        qm.Fidelity(remover=BLACK())(timm_model(1), X, SIGNS, MAPS)
    with pytest.raises(InputError, match="TwoClasses"):
        qm.ClassDiscrimination(qm.Fidelity())(timm_model(1), X, y, MAPS, explain_func=explain)


def test_who_says_what_kind_of_classifier_it_is():
    kinds = ("single_label_classification", "multi_label_classification", "regression")
    assert [probability_of(hugging_face(3, problem_type=kind)) for kind in kinds] == ["softmax", "sigmoid", None]
    model = timm_model(3)
    assert probability_of(model) == probability_of(qm.wrap(model)) == probability_of(cv.logits_of(model)) == "softmax"
    assert probability_of(qm.wrap(cv.MultiLabel(model))) == "sigmoid"
    assert probability_of(cv.Margin(cv.MultiLabel(model), 0, 1)) is None
    assert probability_of(cv.TwoClasses(cv.Scalar(model, lambda z: z[:, 2]))) == "sigmoid"


@pytest.mark.parametrize("softmax", [True, False])
def test_texts_of_several_labels(softmax):
    relevance, target = torch.rand(3, 9, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 0, 2])
    call = (IDS, MASK, target, relevance, ("mif",))
    plain = qm.text_curves(BERT, *call, fractions=(0, 0.5))["mif"].scores
    labels = cv.MultiLabel(BERT)
    found = qm.text_curves(labels, *call, fractions=(0, 0.5), softmax=softmax)["mif"].scores
    torch.testing.assert_close(found, plain.sigmoid() if softmax else plain)
