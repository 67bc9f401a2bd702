"""The classifier trained on with patches missing is what its card says."""

import pytest
import torch
from timm.layers import PatchDropout

from captum_vit.demo import demo_vit, digit_scenes
from captum_vit.demo.digits.dropped.evaluation import evaluate_thinned
from captum_vit.demo.digits.dropped.train import RECIPE
from captum_vit.demo.digits.model import weights_of
from captum_vit.demo.weights import load_weights
from captum_vit.errors import OptionError
from quantus_metrics.perturb import DropTokens


def test_its_weights_ship_with_their_card_and_are_others():
    file, model = weights_of("digits", dropped_tokens=True), demo_vit(dropped_tokens=True)
    assert file.stat().st_size < 3_000_000 and "25%" in file.with_suffix(".md").read_text()
    assert not torch.equal(model.head.weight, demo_vit().head.weight) and not model.training


@pytest.mark.parametrize("options", [{"objective": "label"}, {"pooling": "mean"}])
def test_there_are_none_for_other_models(options):
    with pytest.raises(OptionError, match="dropped_tokens=True are there only for"):
        demo_vit(dropped_tokens=True, **options)


def test_training_takes_patches_out_as_the_tests_do():
    """The same patches, dropped by timm's module in training mode and by `DropTokens`."""
    model, images = demo_vit(dropped_tokens=True), digit_scenes(1).images
    torch.manual_seed(0)
    kept = torch.randn(1, 64).argsort(1)[:, :32]  # as the module draws them
    gone = torch.ones(1, 64, dtype=torch.bool).scatter(1, kept, False).view(1, 8, 8)
    left = DropTokens(fallback=False).bind(model, images)(torch.tensor([0]), gone)
    model.patch_drop = PatchDropout(0.5).train()
    torch.manual_seed(0)
    with torch.no_grad():
        torch.testing.assert_close(model(images), left)


@pytest.mark.slow
def test_it_names_digits_with_patches_missing_better_than_the_plain_model():
    own, plain = (evaluate_thinned(demo_vit(dropped_tokens=trained), seed=1, n=120) for trained in (True, False))
    assert own[0].accuracy.single > 0.92 and own[0].accuracy.both > 0.75
    assert own[2].accuracy.single > plain[2].accuracy.single + 0.03
    assert sum(row.accuracy.both for row in own[1:]) > sum(row.accuracy.both for row in plain[1:])


@pytest.mark.slow
def test_the_script_goes_on_from_the_plain_model(monkeypatch, tmp_path):
    out = tmp_path / "new.safetensors"
    options = ["--batch=2", "--test=20", "--every=1", "--steps=2", "--lr=1", "--lr-rest=1"]
    monkeypatch.setattr("sys.argv", ["train", f"--out={out}", *options])
    RECIPE.main()
    made = demo_vit(pretrained=False)
    load_weights(made, out)
    assert not torch.allclose(made.blocks[0].attn.qkv.weight, demo_vit().blocks[0].attn.qkv.weight, atol=1e-3)
    assert "digits_vit" in out.with_suffix(".md").read_text()
