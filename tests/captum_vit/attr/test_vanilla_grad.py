"""VanillaGrad: what its two forms are, and where the sum is nothing."""

from __future__ import annotations

import pytest
import timm
import torch

import captum_vit as cv
from tests.references.forward import forward, value
from tests.references.models import reference_bert, reference_images, reference_sentences, reference_vit


@pytest.mark.parametrize("method", [cv.VanillaGrad, lambda *a, **k: cv.PLUS(cv.VanillaGrad(*a, **k))], ids=["", "PLUS"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_sum_is_zero_where_norms_take_away_the_mean(method, dtype: torch.dtype) -> None:
    model, images = reference_vit().to(dtype), reference_images().to(dtype)
    with pytest.warns(cv.ZeroMapWarning):
        assert not method(model, reduce="sum").attribute(images, target=1).any()
    assert method(model).attribute(images, target=1).min() > 0


def test_the_sum_of_a_post_norm_model_equals_its_twin() -> None:
    model, (ids, mask) = reference_bert(), reference_sentences()
    found = cv.VanillaGrad(model, reduce="sum").attribute(ids, 1, (mask,))
    for i, sample in enumerate(zip(ids, mask, strict=True)):
        p = forward(model, sample)
        (gradient,) = torch.autograd.grad(value(p, 1), p.blocks[0].x)
        torch.testing.assert_close(found[i][p.real], gradient.sum(-1)[p.real])
        assert found[i].abs().max() > 1e-3 * gradient.norm(dim=-1).max()


def test_a_norm_without_a_mean_leaves_a_sum() -> None:
    torch.manual_seed(0)
    options = {"img_size": 32, "depth": 2, "num_classes": 3, "norm_layer": "rmsnorm"}
    model = timm.create_model("vit_tiny_patch16_224", **options).eval().double()
    assert cv.VanillaGrad(model, reduce="sum").attribute(torch.rand(1, 3, 32, 32).double(), target=1).all()


def test_it_starts_at_any_block_and_refuses_other_reductions() -> None:
    model, images = reference_vit(), reference_images()
    late = cv.VanillaGrad(model, 2, output="tokens").attribute(images, target=1)
    p = forward(model, images[0])
    (gradient,) = torch.autograd.grad(value(p, 1), p.blocks[2].x)
    torch.testing.assert_close(late[0], gradient.norm(dim=-1))
    assert not cv.VanillaGrad(model).multiplies_by_inputs
    with pytest.raises(cv.OptionError, match="reduce"):
        cv.VanillaGrad(model, reduce="max")
    with pytest.raises(cv.OptionError, match="output"):
        cv.VanillaGrad(model, output="channels")
