import ast

import pytest
import torch

from captum_vit.errors import InputError, OptionError
from quantus_metrics.bridge import wrap
from quantus_metrics.perturb import Black, Blur, Fill, Mean, gaussian_blur


def gone_at(*places, n=1, size=(2, 2)):
    gone = torch.zeros(n, *size, dtype=torch.bool)
    for place in places:
        gone[place] = True
    return gone


def left(remover, images, gone):
    """What the model would see."""
    return remover.bind(lambda x: x, images)(torch.arange(len(images)), gone)


@pytest.mark.parametrize("size", [(32, 48), (64, 40)])
def test_blur_is_torchvisions(size):
    functional = pytest.importorskip("torchvision.transforms.functional")
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    sigma = size[0] / 16
    kernel = 2 * int(-(-3 * sigma // 1)) + 1
    torch.testing.assert_close(gaussian_blur(images, sigma), functional.gaussian_blur(images, kernel, sigma))


def test_blur_of_raw_and_of_normalised_pixels_agree():
    raw = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(gaussian_blur((raw - 0.5) / 0.2, 2.0), (gaussian_blur(raw, 2.0) - 0.5) / 0.2)


def test_blur_keeps_flat_images_and_dtype():
    flat = torch.full((1, 3, 32, 32), 0.7)
    torch.testing.assert_close(gaussian_blur(flat, 2.0), flat)
    assert gaussian_blur(flat.bfloat16(), 2.0).dtype == torch.bfloat16


def test_blur_defaults_to_a_sixteenth_of_the_height():
    images = torch.randn(1, 3, 32, 64)
    assert torch.equal(Blur().background(images), gaussian_blur(images, 2.0))
    assert torch.equal(Blur(3).background(images), gaussian_blur(images, 3.0))


def test_only_the_patch_that_goes_is_replaced():
    images = torch.randn(1, 3, 32, 32)
    got = left(Blur(), images, gone_at((0, 0, 1)))
    changed = (got != images).any(1)[0]
    assert changed[:16, 16:].all()
    assert changed.sum() == 16 * 16


def test_fill_by_hand():
    images = torch.ones(2, 3, 4, 4)
    got = left(Fill([0.0, 2.0, 3.0]), images, gone_at((0, 0, 0), (1, 1, 1), n=2))
    assert got[0, :, 0, 0].tolist() == [0, 2, 3]
    assert got[1, :, 3, 3].tolist() == [0, 2, 3]
    assert got.sum() == 2 * 3 * 16 - 2 * 4 * 3 + 2 * 4 * 5


def test_fill_in_raw_units():
    grey = Fill(0.5, mean=[0.4, 0.5, 0.6], std=0.1).background(torch.zeros(1, 3, 2, 2))
    torch.testing.assert_close(grey[0, :, 0, 0], torch.tensor([1.0, 0.0, -1.0]))


def test_mean_is_each_images_own_in_raw_and_in_normalised_pixels():
    raw = torch.rand(2, 3, 4, 6, dtype=torch.float64)
    found = Mean().background(raw)
    assert found.shape == raw.shape
    torch.testing.assert_close(found[1, 2], raw[1, 2].mean().expand(4, 6))
    torch.testing.assert_close(Mean().background((raw - 0.5) / 0.2), (found - 0.5) / 0.2)


def test_black_is_zero_before_the_normalisation():
    images = torch.ones(1, 3, 4, 4)
    got = left(Black(mean=(0.5, 0.25, 0.1), std=(0.5, 0.25, 0.2)), images, gone_at((0, 0, 0)))
    torch.testing.assert_close(got[0, :, 0, 0], torch.tensor([-1.0, -1.0, -0.5]))
    assert (got[0, :, 2:] == 1).all()


def test_black_reads_the_models_own_normalisation(timm_vit, hf_vit):
    """timm's configuration, and Hugging Face's default for the family; through wrappers too."""
    images, gone = torch.randn(1, 3, 32, 32), torch.ones(1, 4, 4, dtype=torch.bool)
    config = timm_vit.pretrained_cfg
    wanted = -torch.tensor(config["mean"]) / torch.tensor(config["std"])
    for model in (timm_vit, wrap(timm_vit)):
        fill = Black().fill(model)
        torch.testing.assert_close(fill.background(images)[0, :, 0, 0], wanted)
        with torch.no_grad():
            black = wanted.view(1, 3, 1, 1).expand(1, 3, 32, 32)
            torch.testing.assert_close(Black().bind(model, images)(torch.tensor([0]), gone), timm_vit(black))
    assert (Black().fill(hf_vit).background(images) == -1).all()


def test_further_arguments_of_each_image_go_along():
    images, shift = torch.zeros(3, 1, 2, 2), torch.tensor([1.0, 2.0, 3.0])
    answer = Fill(1.0).bind(lambda x, shift, scale: x.mean((1, 2, 3)) * scale + shift, images, (shift, 4.0))
    gone = gone_at((1, 0, 0), n=2)
    assert answer(torch.tensor([2, 0]), gone).tolist() == [3.0, 2.0]


def test_a_row_may_be_asked_more_than_once():
    images = torch.stack([torch.full((3, 4, 4), v) for v in (1.0, 2.0)])
    answer = Fill(0.0).bind(lambda x: x.mean((1, 2, 3)), images)
    gone = gone_at((0, 0, 0), (2, 0, 0), (2, 0, 1), n=3)
    assert answer(torch.tensor([1, 1, 0]), gone).tolist() == [1.5, 2.0, 0.5]


def test_errors():
    with pytest.raises(OptionError, match="above 0"):
        Blur(0)
    with pytest.raises(InputError, match="radius"):
        gaussian_blur(torch.randn(1, 3, 8, 8), 3.0)
    with pytest.raises(InputError, match="channels"):
        Fill([1.0, 2.0]).background(torch.randn(1, 3, 8, 8))
    with pytest.raises(InputError, match="DropTokens"):
        Blur().bind(lambda x: x, torch.ones(2, 7, dtype=torch.long))
    with pytest.raises(OptionError, match="neither"):
        Black(mean=0.5)
    with pytest.raises(OptionError, match="has no configuration"):
        Black().bind(lambda x: x, torch.randn(1, 3, 8, 8))
    with pytest.raises(OptionError, match="has no configuration"):
        Black().bind(torch.nn.Identity(), torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize("remover", [
    Fill((0.1, 0.2, 0.3)), Fill(0.0, mean=(0.1, 0.2, 0.3)), Fill(0.0, std=(0.1, 0.2, 0.3)),
    Black(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5)),
], ids=repr)  # fmt: skip
def test_the_option_that_has_numbers_for_other_channels_is_named(remover):
    """Of images with four channels; and the advice works."""
    images = torch.rand(2, 4, 8, 8)
    with pytest.raises(InputError, match="each of 4 channels") as refusal:
        remover.bind(lambda x: x.mean((2, 3)), images)
    name, value = refusal.value.hint.rstrip(".").split("=")
    assert f"`{name}`" in refusal.value.wanted and len(getattr(remover, name)) == 3
    four = {name: ast.literal_eval(value)}
    Fill(**four).bind(lambda x: x.mean((2, 3)), images)
