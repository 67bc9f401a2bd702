"""Maps of pixels: each token over the pixels that it reads, zero where the model reads none."""

import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.trace.record.record import Want, record
from captum_vit.trace.run.layouts import layout_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import draws
from tests.models import redrawn, timm_vit
from tests.models.timm import TIMM


@cache
def cut_off() -> tuple[nn.Module, Tensor, Tensor]:
    """DINOv2's convolution leaves the border of 39 pixels unread; the picture that it reads has 32."""
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "num_labels": 5}
    config = transformers.Dinov2Config(image_size=32, patch_size=8, **sizes)
    model, x = redrawn(transformers.Dinov2ForImageClassification(config)).double(), torch.randn(2, 3, 39, 37).double()
    return model, x, x[..., :32, :32]


@cache
def padded() -> tuple[nn.Module, Tensor, Tensor]:
    """timm pads a picture to whole patches."""
    model = redrawn(timm_vit(**TIMM | {"depth": 2}, dynamic_img_pad=True, dynamic_img_size=True)).double()
    x = torch.randn(2, 3, 28, 30).double()
    return model, x, F.pad(x, (0, 2, 0, 4))


def explained(method: str, model: nn.Module, x: Tensor) -> Tensor:
    attribution = cv.METHODS[method](model)
    attribution.output = "pixels"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attribution.attribute(x, target=[1, 4])


@pytest.mark.parametrize("case", [cut_off, padded], ids=["cut off", "padded"])
def test_a_token_lies_over_the_pixels_that_it_reads(method: str, case: Callable[[], tuple[nn.Module, Tensor, Tensor]]):
    model, x, read = case()
    if draws(cv.METHODS[method](model)) or method == "DAVE" or (method == "Saliency" and case is padded):
        return  # DAVE turns pictures about their centre; Saliency adds slopes up, and a pixel that is padding has none
    found, whole = explained(method, model, x), explained(method, model, read)
    height, width = (min(sizes) for sizes in zip(x.shape[2:], read.shape[2:], strict=True))
    assert_close(found[..., :height, :width], whole[..., :height, :width], "float64")
    assert not found[..., height:, :].any()
    assert not found[..., width:].any()


# -- where the grid lies, by what happens between the picture and the convolution ---------------------------------


class Before(nn.Module):
    """A patch embedding behind something else."""

    def __init__(self, embedding: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.embedding, self.change = embedding, change

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(self.change(x))


def box_of(change: Callable[[Tensor], Tensor], height: int, width: int) -> tuple[int, ...]:
    model = redrawn(timm_vit(**TIMM | {"depth": 1}))
    model.patch_embed = Before(model.patch_embed, change).eval()
    with undisturbed(model):
        x = torch.randn(2, 3, height, width)
        found = record(Pass(model, (x,), (), cv.spec_of(model, x)), None, Want(seen=["tokens"]))
        return found.layout.box


@pytest.mark.parametrize(
    "change, size, box",
    [
        (lambda x: x, (32, 32), (0, 0, 32, 32)),
        (lambda x: F.interpolate(x, (32, 32), mode="bilinear"), (48, 24), (0, 0, 48, 24)),
        (lambda x: F.interpolate(x, (32, 32), mode="nearest"), (16, 24), (0, 0, 16, 24)),
        (lambda x: x[..., 3:35, 5:37], (40, 40), (3, 5, 35, 37)),
        (lambda x: F.pad((x - 0.5) / 0.2, (1, 1, 3, 3)), (26, 30), (-3, -1, 29, 31)),
        (lambda x: F.interpolate(x[..., 2:18, 3:19], (32, 32)), (20, 20), (2, 3, 18, 19)),
    ],
    ids=["as it is", "resized", "nearest", "cropped", "normalised and padded", "cropped and resized"],
)
def test_the_grid_lies_where_its_pixels_are(change, size, box):
    assert box_of(change, *size) == box


class Cut(nn.Module):
    """Patches cut by a convolution, as a sequence."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x).flatten(2).mT


@pytest.mark.parametrize(
    "options, size, grid, box",
    [
        ({"kernel_size": 3, "stride": 2, "padding": 1}, 12, 6, (0, 0, 12, 12)),
        ({"kernel_size": 7, "stride": 4, "padding": 3}, 32, 8, (0, 0, 32, 32)),
        ({"kernel_size": 16, "stride": 10}, 48, 4, (3, 3, 43, 43)),
        ({"kernel_size": 16, "stride": 8}, 64, 7, (4, 4, 60, 60)),
        ({"kernel_size": 8, "stride": 8, "padding": 2}, 28, 4, (-2, -2, 30, 30)),
        ({"kernel_size": 4, "stride": 8}, 30, 4, (-2, -2, 30, 30)),
    ],
    ids=["stem", "wide stem", "cut off", "half overlapped", "padded", "apart"],
)
@pytest.mark.parametrize("detached", [False, True], ids=["with a gradient", "detached"])
def test_patches_divide_the_pixels_that_they_read(options, size, grid, box, detached):
    """Also where they overlap, or the embedding lets no gradient through."""
    model = redrawn(timm_vit(**TIMM | {"depth": 1, "img_size": size, "class_token": False, "global_pool": "avg"}))
    model.pos_embed = None
    model.patch_embed = Before(
        redrawn(Cut(nn.Conv2d(3, 24, **options))), lambda x: x.detach() if detached else x
    ).eval()
    with undisturbed(model):
        x = torch.randn(2, 3, size, size)
        found = layout_of(Pass(model, (x,), (), cv.spec_of(model, x)))
    assert (found.grid, found.box, found.places) == ((grid, grid), box, None)


def test_pixels_are_summed_over_the_patches_that_read_them():
    """InputXGradient at the pixels of a padded picture: its patches are those of the picture as it was padded."""
    model, x, read = padded()
    method = cv.METHODS["InputXGradient"](model)
    assert_close(method.attribute(x, target=[1, 4]), method.attribute(read, target=[1, 4]), "float64")


@pytest.mark.parametrize("case", [cut_off, padded], ids=["cut off", "padded"])
def test_quantus_is_given_each_patch_over_its_pixels(case: Callable[[], tuple[nn.Module, Tensor, Tensor]]):
    model, x, read = case()
    explain = qm.explain_func(cv.GenAtt)
    found, whole = (torch.from_numpy(explain(model, inputs.numpy(), np.array([1, 4]))) for inputs in (x, read))
    height, width = (min(sizes) for sizes in zip(x.shape[2:], read.shape[2:], strict=True))
    assert_close(found[..., :height, :width], whole[..., :height, :width], "float64")
    assert not found[..., height:, :].any()
    assert not found[..., width:].any()


def test_a_picture_shows_what_lies_under_the_grid():
    model, x, read = cut_off()
    assert torch.equal(cv.explain(model, x[0], 1).image, cv.explain(model, read[0], 1).image[..., :32, :32])
