import pytest
import torch

from captum_vit.errors import InputError, OptionError
from quantus_metrics.perturb import Blur, Fill, gaussian_blur


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


def test_a_row_may_be_asked_more_than_once():
    images = torch.stack([torch.full((3, 4, 4), v) for v in (1.0, 2.0)])
    answer = Fill(0.0).bind(lambda x: x.mean((1, 2, 3)), images)
    gone = gone_at((0, 0, 0), (2, 0, 0), (2, 0, 1), n=3)
    assert answer(torch.tensor([1, 1, 0]), gone).tolist() == [1.5, 2.0, 0.5]


def test_errors():
    with pytest.raises(OptionError, match="positive"):
        Blur(0)
    with pytest.raises(InputError, match="radius"):
        gaussian_blur(torch.randn(1, 3, 8, 8), 3.0)
    with pytest.raises(InputError, match="channels"):
        Fill([1.0, 2.0]).background(torch.randn(1, 3, 8, 8))
