"""DAVE: gradient x input without movements, equivariant, complete up to biases, the same in every batch."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.inputs.movements import Movement, drawn
from captum_vit.trace.modes.rules import under
from tests.references import dave
from tests.references.models import reference_bert, reference_images, reference_sentences, reference_vit

STILL = {"n_samples": 1, "flip": 0, "rotate": 0, "scale": 0, "shift": 0, "noise": 0}
TARGETS = [1, 4]


@cache
def vit() -> nn.Module:
    return reference_vit(layer_scale=True)


def pixels(images: Tensor, model: nn.Module | None = None, **options: Any) -> Tensor:
    return cv.DAVE(model or vit(), output="pixels", **options).attribute(images, TARGETS[: len(images)])


@pytest.mark.parametrize("rule", ["frozen", "libra"])
def test_without_movements_it_is_gradient_x_input_under_the_rule(rule: str) -> None:
    model, images = vit(), reference_images()
    leaf = images.clone().requires_grad_()
    with under(rule):
        scores = model(leaf)
    (grad,) = torch.autograd.grad(scores[0, 1] + scores[1, 4], leaf)
    assert torch.equal(pixels(images, rule=rule, **STILL), (images * grad).sum(1, keepdim=True))


def test_flipped_images_have_flipped_maps() -> None:
    """Under a flip that always is, the map is that of the flipped image, flipped back; of a single one by itself."""
    images = reference_images()
    wanted = pixels(images.flip(-1), **STILL).flip(-1)
    torch.testing.assert_close(pixels(images, **STILL | {"flip": 1}), wanted, rtol=1e-12, atol=1e-14)


def test_pixels_sum_to_the_mean_score_where_there_are_no_biases() -> None:
    """And no positions and no class token, which are constants too."""
    model = reference_vit()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or name in ("pos_embed", "cls_token"):
            nn.init.zeros_(parameter)
    images, draws = reference_images(), torch.Generator().manual_seed(0)
    move = {"flip": 0.5, "turn": 20.0, "scale": 0.1, "shift": 0.1}
    scores = torch.stack([model(drawn(draws, **move)(images)) for _ in range(4)]).mean(0)
    found = pixels(images, model, n_samples=4, noise=0)
    torch.testing.assert_close(found.sum((1, 2, 3)), torch.stack([scores[0, 1], scores[1, 4]]), rtol=1e-10, atol=1e-12)


def test_a_patch_is_the_sum_of_its_pixels() -> None:
    images = reference_images()
    grid = cv.DAVE(vit(), n_samples=2).attribute(images, TARGETS)
    sums = pixels(images, n_samples=2).unfold(2, 8, 8).unfold(3, 8, 8).sum((-1, -2))
    torch.testing.assert_close(grid, sums, rtol=1e-10, atol=1e-12)


def test_draws_depend_on_the_seed_alone(capsys: pytest.CaptureFixture) -> None:
    images = reference_images()
    torch.manual_seed(5)
    found = pixels(images, n_samples=5)
    torch.manual_seed(6)
    method = cv.DAVE(vit(), n_samples=5, output="pixels")
    for at_once in (2, 5):
        again = method.attribute(images, TARGETS, perturbations_per_eval=at_once, show_progress=True)
        torch.testing.assert_close(again, found, rtol=1e-12, atol=1e-14)
    assert "3/3" in capsys.readouterr().err
    torch.testing.assert_close(method.attribute(images[1:], 4), found[1:], rtol=1e-12, atol=1e-14)
    assert not torch.allclose(pixels(images, n_samples=5, seed=1), found)


def test_outliers_are_left_out_entry_by_entry() -> None:
    """Against the twin's samples: further from the median than 2.5 deviations, by the median absolute deviation."""
    image = reference_images(1)
    every = torch.stack(dave.samples(vit(), image[0], 1, 7, 0.6))
    middle = every.median(0).values
    kept = (every - middle).abs() <= 2.5 * 1.4826 * (every - middle).abs().median(0).values
    assert 0.01 < (~kept).double().mean() < 0.4
    wanted = ((every * kept).sum(0) / kept.sum(0)).sum(0)
    found = pixels(image, n_samples=7, noise=0.6, average="mad")[0, 0]
    assert (found - wanted).abs().max() < 1e-9 * wanted.abs().max()


def test_movements_are_those_of_pictures() -> None:
    x = torch.arange(48, dtype=torch.float64).view(1, 2, 4, 6)
    square = x[..., :4]
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(Movement(turn=90)(square), square.rot90(-1, (2, 3)), **close)
    shifted = Movement(shift=(1 / 6, 0.5))(x)
    torch.testing.assert_close(shifted[:, :, 2:, 1:], x[:, :, :2, :5], **close)
    assert not shifted[:, :, :2].any() and not shifted[..., 0].any()
    assert torch.equal(Movement(flip=True)(x), x.flip(-1)) and Movement()(x) is x
    torch.testing.assert_close(Movement(scale=0.5)(x)[:, :, 1:3, 2:4].mean(), x.mean(), **close)
    assert Movement(turn=30)(x.half()).dtype == torch.half


def test_a_text_is_not_moved() -> None:
    (ids, mask), model = reference_sentences(), reference_bert()
    found = cv.DAVE(model, rule="libra").attribute(ids, TARGETS, additional_forward_args=mask)
    assert torch.equal(found, cv.DecompX(model, rule="libra").attribute(ids, TARGETS, additional_forward_args=mask))
    with pytest.raises(cv.OptionError, match="'libra'"):
        cv.DAVE(model, rule="grad")
