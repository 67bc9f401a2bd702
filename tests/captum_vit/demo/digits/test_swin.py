"""The shipped Swin is what its card says."""

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer

import captum_vit as cv
from captum_vit.demo import demo_swin, demo_vit, digit_scenes
from captum_vit.demo.digits.evaluation import effect, evaluate
from captum_vit.demo.digits.swin.model import WEIGHTS
from captum_vit.demo.digits.swin.start import start_from_vit
from quantus_metrics.metrics.pointing import pointing_accuracy


def test_it_is_an_ordinary_timm_swin() -> None:
    model = demo_swin(pretrained=False)
    config = timm.data.resolve_model_data_config(model)
    assert type(model) is SwinTransformer and not model.training
    assert config["input_size"] == (3, 64, 64) and config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    assert model.get_classifier() is model.get_submodule(model.pretrained_cfg["classifier"])
    assert model(digit_scenes(2).images).shape == (2, 10)


def test_it_has_two_grids_and_shifted_windows() -> None:
    model = demo_swin(pretrained=False)
    stages = model.forward_intermediates(digit_scenes(2).images, intermediates_only=True)
    assert [tuple(stage.shape) for stage in stages] == [(2, 128, 8, 8), (2, 256, 4, 4)]
    blocks = [block for stage in model.layers for block in stage.blocks]
    assert [block.shift_size for block in blocks] == [(0, 0), (2, 2), (0, 0), (2, 2), (0, 0), (0, 0)]


def test_the_weights_are_small_and_come_as_float32() -> None:
    assert WEIGHTS.stat().st_size < 4_500_000 and WEIGHTS.with_suffix(".md").exists()
    assert {parameter.dtype for parameter in demo_swin().parameters()} == {torch.float32}


@pytest.mark.slow
def test_it_names_held_out_digits() -> None:
    accuracy = evaluate(demo_swin(), seed=1, n=250)
    assert accuracy.single > 0.91 and accuracy.both > 0.8


@pytest.mark.slow
def test_a_logit_is_about_its_digit() -> None:
    own, other, share, _ = effect(demo_swin(), seed=1, n=100)
    assert own > 5 > abs(other) and share < 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("method", "least"), [("DecompX", 0.97), ("PLUS(DecompX)", 0.97), ("LayerCDAM", 0.9)])
def test_maps_point_at_the_digit(method: str, least: float) -> None:
    scenes = digit_scenes(50, 2, seed=1)
    inputs, target = scenes.images.repeat_interleave(2, 0), scenes.digits.flatten()
    maps = cv.METHODS[method](demo_swin()).attribute(inputs, target=target)
    assert maps.shape == (100, 1, 8, 8)
    assert pointing_accuracy(maps, scenes.masks.flatten(0, 1), 4) >= least


def test_the_first_stage_starts_as_the_classifier() -> None:
    """Patches and blocks; relative positions and all behind the stage keep the weights that they had."""
    swin, vit = demo_swin(pretrained=False), demo_vit()
    before = {name: tensor.clone() for name, tensor in swin.state_dict().items()}
    start_from_vit(swin, vit)
    for block, earlier in zip(swin.layers[0].blocks, vit.blocks[:4], strict=True):
        assert all(torch.equal(block.state_dict()[name], tensor) for name, tensor in earlier.state_dict().items())
    changed = {name for name, tensor in swin.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith(("patch_embed.", "layers.0.blocks.")) for name in changed)
    assert not any("relative_position" in name for name in changed)


def test_patches_start_with_the_mean_spread_that_they_have_in_the_classifier() -> None:
    swin, vit, images = demo_swin(pretrained=False), demo_vit(), digit_scenes(64, (1, 3), "train", seed=5).images
    start_from_vit(swin, vit)
    with torch.no_grad():
        wanted = (vit.patch_embed(images) + vit.pos_embed[:, 1:].mean(1)).std(-1).mean()
        torch.testing.assert_close(swin.patch_embed(images).std(-1).mean(), wanted, rtol=0.05, atol=0)
