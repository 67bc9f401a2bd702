"""The self-test: good metrics notice what is worse, bad ones are found out."""

import numpy as np
import pytest
import torch
from quantus.helpers.enums import ScoreDirection

import captum_vit as cv
import quantus_metrics as qm
from captum_vit import demo
from captum_vit.errors import InputError, OptionError
from quantus_metrics.randomised import randomised

STEPS = (0, 0.1, 0.25, 0.5, 1)
FEW = (0, 0.25, 1)


def scenes(n):
    found = demo.digit_scenes(n, n_digits=2, seed=5)
    return {
        "explain": qm.explain_func(cv.LayerCDAM),
        "model": demo.demo_vit(),
        "x_batch": found.images.numpy(),
        "y_batch": found.digits[:, 0].numpy(),
    }


@pytest.fixture(scope="module")
def known():
    return scenes(24)


class UpsideDown(qm.Fidelity):
    """Says the opposite of what it measures."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.score_direction = ScoreDirection.LOWER


INNER, FULL = STEPS[1:-1], pytest.mark.full  # these count what the others count in other ways


@pytest.mark.slow
@pytest.mark.parametrize(
    "metric",
    [
        pytest.param(qm.Deletion(patch_size=8, score="aopc", fractions=(0.25,)), id="deletion"),
        pytest.param(qm.Deletion(patch_size=8, fractions=INNER), id="deletion, accuracy", marks=FULL),
        pytest.param(qm.Fidelity(patch_size=8, fractions=FEW), id="fidelity"),
        pytest.param(qm.Fidelity(patch_size=8, fractions=STEPS, score="mif"), id="MIF", marks=FULL),
        pytest.param(qm.AOPC(patch_size=8, fractions=STEPS), id="AOPC", marks=FULL),
    ],
)
def test_the_metrics_notice(metric, capsys):
    known = scenes(100)
    found = qm.self_test(metric, **known)
    assert found.passed, str(found)
    assert capsys.readouterr().out.strip() == str(found)
    assert [rival.name for rival in found.rivals] == ["with noise (1)", "of a randomised model", "RandomAttribution"]
    arrays = (known["model"], known["x_batch"], known["y_batch"])
    assert found.method.mean == pytest.approx(np.mean(metric(*arrays, explain_func=known["explain"])))
    for rival in found.rivals:
        turn = 1 if found.higher_is_better else -1
        assert rival.behind.mean == pytest.approx(turn * (found.method.mean - rival.score.mean), abs=1e-4)


@pytest.mark.slow
def test_insertion_notices_what_knows_nothing():
    """Noise as loud as the map costs it 3 of 112 here, which 60 scenes do not show."""
    metric = qm.Insertion(patch_size=8, score="aopc", fractions=INNER)
    _, *blind = qm.self_test(metric, **scenes(60), verbose=False).rivals
    assert all(rival.noticed for rival in blind)


@pytest.mark.slow
def test_a_metric_that_is_upside_down_is_found_out(known):
    found = qm.self_test(UpsideDown(patch_size=8, fractions=FEW), **known, verbose=False)
    assert not found.passed
    assert not any(rival.noticed for rival in found.rivals)
    assert "NO" in str(found)


@pytest.mark.slow
def test_a_method_that_is_random_itself_does_not_pass(known):
    blind = {**known, "explain": qm.explain_func(cv.RandomAttribution)}
    assert not qm.self_test(qm.Fidelity(patch_size=8, fractions=FEW), **blind, verbose=False).passed


@pytest.mark.slow
def test_nothing_is_touched_and_it_can_be_repeated(known):
    model, state = known["model"], torch.get_rng_state()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    few = {**known, "x_batch": known["x_batch"][:4], "y_batch": known["y_batch"][:4], "verbose": False}
    metric = qm.Fidelity(patch_size=8, fractions=(0, 0.5, 1))
    assert qm.self_test(metric, **few) == qm.self_test(metric, **few)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_randomised_model_keeps_its_numbers_but_not_their_places(known):
    other = randomised(known["model"], torch.Generator().manual_seed(0))
    for (name, ours), theirs in zip(known["model"].named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours.flatten().sort()[0], theirs.flatten().sort()[0]), name
        assert not torch.equal(ours, theirs), name


@pytest.mark.slow
def test_texts():
    bert = demo.demo_bert(pretrained=False)
    model = qm.wrap_text(bert, demo.demo_bert_tokenizer())
    ids = np.random.default_rng(0).integers(10, 50, (3, 7))
    found = qm.self_test(qm.Deletion(score="aopc"), qm.explain_func(cv.GenAtt), model, ids, np.array([0, 1, 0]))
    assert all(np.isfinite(rival.score.mean) for rival in found.rivals)


@pytest.mark.slow
def test_errors(known):
    with pytest.raises(OptionError, match="noise"):
        qm.self_test(qm.Fidelity(), **known, noise=0)
    one = {**known, "x_batch": known["x_batch"][:1], "y_batch": known["y_batch"][:1]}
    with pytest.raises(InputError, match="two"):
        qm.self_test(qm.Fidelity(), **one)
    with pytest.raises(InputError, match="One score"):
        qm.self_test(qm.Fidelity(patch_size=8, fractions=(0, 1), return_aggregate=True), **known)
    with pytest.raises(InputError, match="factory"):
        instance = qm.explain_func(cv.LayerCDAM(known["model"]))
        qm.self_test(qm.Fidelity(patch_size=8, fractions=(0, 1)), **{**known, "explain": instance})


def test_rivals_are_as_large_as_the_maps_of_the_method(known):
    """Maps of patches lose whole patches; so must those that they are compared with."""
    sizes = []

    class Watched(qm.Compactness):
        def _measure(self, batch):
            sizes.append(tuple(batch.relevance.shape[-2:]))
            return super()._measure(batch)

    def patches(model, inputs, targets, **_):
        return cv.LayerCDAM(model).attribute(torch.tensor(inputs), torch.tensor(targets)).numpy()[:, 0]

    qm.self_test(Watched(), patches, known["model"], known["x_batch"][:4], known["y_batch"][:4], verbose=False)
    assert len(set(sizes)) == 1 and len(sizes) == 4
