"""Smooth CDAM: its twin, its limits, its random numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import captum_vit as cv
from tests.captum_vit.attr.test_cdam_routes import close, explain
from tests.contracts.pairs import in_float64
from tests.models import CASES, slow_beyond_slice
from tests.references import cdam
from tests.references.models import reference_bert, reference_images, reference_sentences, reference_vit

ROUTES = ("timm ViT", "timm ViT qk-norm", "HF BERT")


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(n: int, shape: tuple[int, ...], stdev: float) -> Tensor:
    """What the method draws from the same generator: one batch of tokens after the other."""
    generator = seeded()
    return torch.stack([torch.empty(shape).double().normal_(std=stdev, generator=generator) for _ in range(n)])


@pytest.mark.slow
@pytest.mark.parametrize("layer", [-1, 1])
def test_equals_its_twin(layer):
    model, images = reference_vit(), reference_images()
    found = cv.LayerSmoothCDAM(model, layer, output="tokens").attribute(
        images, target=[1, 4], n_samples=4, stdev=0.4, generator=seeded()
    )
    noise = draws(4, (2, 17, 24), 0.4)
    wanted = [cdam.smooth_cdam(model, images[i], [1, 4][i], noise[:, i], layer) for i in range(2)]
    assert (found - torch.stack(wanted)).abs().max() < 1e-9 * found.abs().max()


def test_equals_its_twin_on_text():
    model, (ids, mask) = reference_bert(), reference_sentences((9, 9))
    found = cv.LayerSmoothCDAM(model).attribute(ids, [1, 4], mask, n_samples=3, stdev=0.4, generator=seeded())
    noise = draws(3, (2, 9, 24), 0.4)
    wanted = [cdam.smooth_cdam(model, (ids[i], mask[i]), [1, 4][i], noise[:, i]) for i in range(2)]
    assert (found - torch.stack(wanted)).abs().max() < 1e-9 * found.abs().max()


@pytest.mark.parametrize("name", slow_beyond_slice(CASES))
def test_without_noise_it_is_cdam(name):
    case = in_float64(name)
    found = explain(cv.LayerSmoothCDAM(case.forward_func), case, stdev=0.0, n_samples=2)
    close(found, explain(cv.LayerCDAM(case.forward_func), case))


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("rows", [1, 5, 6, 100])
def test_portions_change_nothing(name, rows):
    case = in_float64(name)
    method = cv.LayerSmoothCDAM(case.forward_func)
    wanted = explain(method, case, n_samples=12, generator=seeded())
    close(explain(method, case, n_samples=12, generator=seeded(), internal_batch_size=rows), wanted)


@pytest.mark.parametrize("name", ROUTES)
def test_a_generator_is_all_that_moves(name):
    case = in_float64(name)
    method = cv.LayerSmoothCDAM(case.forward_func)
    before = torch.get_rng_state()
    first = explain(method, case, n_samples=3, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(explain(method, case, n_samples=3, generator=seeded()), first)
    assert not torch.allclose(explain(method, case, n_samples=3, generator=seeded(4)), first)
    explain(method, case, n_samples=3)
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_more_samples_come_nearer_to_the_mean():
    case = in_float64("timm ViT")
    method = cv.LayerSmoothCDAM(case.forward_func)
    mean = explain(method, case, n_samples=3000, generator=seeded(0))
    few, many = (explain(method, case, n_samples=n, generator=seeded(1)) for n in (5, 500))
    assert (many - mean).norm() < 0.3 * (few - mean).norm()


def test_channels_and_positive_evidence():
    case = in_float64("timm ViT")
    tokens, channels = cv.LayerSmoothCDAM(case.forward_func), cv.LayerSmoothCDAM(case.forward_func, output="channels")
    signed = explain(tokens, case, generator=seeded())
    close(channels.attribute(case.inputs, case.target, generator=seeded()).sum(-1), signed)
    assert (signed < 0).any()
    close(explain(tokens, case, generator=seeded(), relu_attributions=True), signed.clamp(min=0))


WRONG = [{"n_samples": 0}, {"stdev": -1.0}, {"stdev": float("nan")}, {"internal_batch_size": 0}]


@pytest.mark.parametrize("option", WRONG)
def test_a_wrong_option(option):
    case = CASES["timm ViT"]()
    with pytest.raises(cv.OptionError):
        cv.LayerSmoothCDAM(case.forward_func).attribute(case.inputs, 1, **option)


def test_wrong_layers_and_targets():
    case = CASES["timm ViT"]()
    for layer in ("blocks.2", "patch_embed.proj", "nowhere", 7):
        with pytest.raises(cv.LayerError):
            cv.LayerSmoothCDAM(case.forward_func, layer).attribute(case.inputs, 1)
    with pytest.raises(cv.TargetError):
        cv.LayerSmoothCDAM(case.forward_func).attribute(case.inputs, 9)
