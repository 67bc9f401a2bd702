"""What metrics need alike is run once, and their scores stay what they are one by one."""

import numpy as np
import pytest
import torch

import quantus_metrics as qm
from captum_vit.errors import InputError, OptionError
from quantus_metrics.metrics import TokenMetric
from quantus_metrics.perturb import Blur, Fill, ReplaceTokens
from tests.quantus_metrics.conftest import Additive
from tests.references.models import reference_bert, reference_sentences

STEPS = (0.0, 0.3, 0.6, 1.0)
MIDDLE = STEPS[1:3]
MAPS = np.random.default_rng(0).standard_normal((2, 3, 4, 4))
BOXES = {"sizes": (1, 2), "n_boxes": 5}


def of_every_kind() -> list[TokenMetric]:
    """Scores, probabilities and answers; in pixels and of tokens."""
    black = Fill(-1)
    return [
        qm.Fidelity(fractions=STEPS),
        qm.ClassDiscrimination(qm.Fidelity(fractions=(0.0, 0.6, 1.0))),
        qm.PerturbationAccuracy(score="positive", fractions=MIDDLE, remover=black),
        qm.AOPC(fractions=STEPS, remover=black),
        qm.LogOdds(fractions=MIDDLE, remover=Fill(-1)),
        qm.Deletion(score="aopc", fractions=MIDDLE),
        qm.Insertion(fractions=MIDDLE),
        qm.BoxSensitivity(**BOXES),
        qm.IDSDS(),
        qm.FFidelity(sizes=(0.5,), n_draws=2),
    ]


def test_scores_are_those_of_metrics_called_one_by_one(timm_vit, data) -> None:
    model, x, y = timm_vit.double(), data["x_batch"][:3].astype(np.float64), data["y_batch"][:3]
    seen: list[int] = []
    model.register_forward_hook(lambda _, args, output: seen.append(len(output)))

    def call(metric: TokenMetric, maps: np.ndarray, **passes: qm.Passes) -> list[float]:
        given = {"custom_batch": MAPS[0]} if isinstance(metric, qm.ClassDiscrimination) else {}
        return metric(model, x, y, maps, **given, **passes)

    one_by_one = [call(metric, maps) for maps in MAPS for metric in of_every_kind()]
    alone, passes = sum(seen), qm.Passes(model)
    seen.clear()
    together = [call(metric, maps, passes=passes) for maps in MAPS for metric in of_every_kind()]
    assert together == one_by_one
    assert sum(seen) < 0.6 * alone


def test_words_are_taken_out_once() -> None:
    ids, _ = reference_sentences()
    model = qm.wrap_text(reference_bert(), pad_id=0, special_ids=(1, 2))
    passes, relevance = qm.Passes(model), np.random.default_rng(3).standard_normal(ids.shape)
    for metric in (qm.Deletion(), qm.AOPC(fractions=MIDDLE), qm.AOPC(fractions=MIDDLE, remover=ReplaceTokens(39))):
        call = (model, ids.numpy(), np.array([3, 0]), relevance)
        assert metric(*call, passes=passes) == metric(*call)


def scores(metric: TokenMetric, model: Additive, passes: qm.Passes | None = None, sign: int = 1) -> list[float]:
    rng = np.random.default_rng(0)
    x, maps = rng.random((2, 3, 12, 12), dtype=np.float32), rng.standard_normal((2, 3, 3))
    return metric(model, x, np.array([0, 1]), sign * maps, passes=passes)


def test_what_is_known_is_not_run(additive) -> None:
    """Two images; a call runs one of them again, whole, to know the model."""
    model = additive(torch.randn(2, 3, 3))
    passes = qm.Passes(model)

    def images(metric: TokenMetric, sign: int = 1) -> int:
        before = model.images
        scores(metric, model, passes, sign)
        return model.images - before

    both = qm.Fidelity(fractions=(0, 0.5, 1), remover=Fill())
    assert images(both) == 1 + 2 * 4  # intact, empty, and half of it in two orders
    assert images(qm.AOPC(fractions=(0, 0.5), remover=Fill(0.0))) == 1
    assert images(both, sign=-1) == 1
    assert images(qm.Fidelity(fractions=(0, 0.5, 1), remover=Fill(1))) == 1 + 2 * 3
    assert images(qm.BoxSensitivity(**BOXES, remover=Fill())) > 1
    assert images(qm.BoxSensitivity(**BOXES, remover=Fill()), sign=-1) == 1


def test_a_model_that_has_changed_is_run_again(additive) -> None:
    model = additive(torch.randn(2, 3, 3))
    passes, metric = qm.Passes(model), qm.BoxSensitivity(**BOXES, remover=Fill())
    scores(metric, model, passes)
    model.weights.data.mul_(-1).add_(0.5)
    assert scores(metric, model, passes) == scores(metric, model)
    handle = model.register_forward_hook(lambda *call: call[-1] ** 3)
    assert scores(metric, model, passes) == scores(metric, model)
    handle.remove()


class Shaded(Blur):
    """Written like any `Blur` of its sigma, whatever the shade."""

    def __init__(self, shade: float) -> None:
        super().__init__(sigma=1.0)
        self.shade = shade

    def background(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().background(inputs) + self.shade


def test_a_remover_that_is_not_known_shares_only_with_itself(additive) -> None:
    model = additive(torch.randn(2, 3, 3))
    passes = qm.Passes(model)
    found = [scores(qm.Fidelity(remover=Shaded(shade)), model, passes) for shade in (1, 2)]
    assert found == [scores(qm.Fidelity(remover=Shaded(shade)), model) for shade in (1, 2)]
    assert found[0] != found[1]


def test_memory_is_bounded(additive) -> None:
    model = additive(torch.randn(20_000, 3, 3))
    passes, metric = qm.Passes(model, most_mib=1), qm.Fidelity(remover=Fill())
    for _ in range(2):
        assert scores(metric, model, passes) == scores(metric, model)
        assert 0 < sum(row.nbytes for row in passes._outputs.values()) <= 2**20


def test_passes_of_another_model_are_refused(additive) -> None:
    model, other = additive(torch.randn(2, 3, 3)), additive(torch.randn(2, 3, 3))
    with pytest.raises(InputError, match="Passes of the model that the metric is called with"):
        scores(qm.Fidelity(), model, qm.Passes(other))
    with pytest.raises(InputError, match="No model_predict_kwargs beside passes"):
        qm.Fidelity()(model, model.ones(1), [0], MAPS[:1, 0], passes=qm.Passes(model), model_predict_kwargs={"a": 1})
    with pytest.raises(OptionError, match="most_mib"):
        qm.Passes(model, most_mib=0)
