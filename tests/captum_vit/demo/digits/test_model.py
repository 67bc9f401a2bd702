"""The shipped classifier is what its card says."""

import pytest
import timm
import torch

from captum_vit.demo import demo_vit, digit_scenes
from captum_vit.demo.digits.evaluation import effect, evaluate
from captum_vit.demo.digits.model import POOLINGS, SHIPPED, weights_of
from captum_vit.demo.digits.train import RECIPE, begin, targets_of
from captum_vit.demo.weights import load_weights, save_weights
from captum_vit.errors import OptionError


@pytest.mark.parametrize("pooling", POOLINGS)
def test_it_is_an_ordinary_timm_model(pooling: str) -> None:
    model = demo_vit(pretrained=False, pooling=pooling)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 64, 64) and config["crop_pct"] == 1.0
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    assert model.pretrained_cfg["label_names"][7] == "seven"
    assert not model.training and model.num_prefix_tokens == 1
    assert model(digit_scenes(2).images).shape == (2, 10)


@pytest.mark.parametrize(("objective", "pooling"), SHIPPED)
def test_the_weights_are_small_and_come_as_float32(objective: str, pooling: str) -> None:
    file, model = weights_of(objective, pooling), demo_vit(objective=objective, pooling=pooling)
    assert file.stat().st_size < 3_000_000
    assert file.with_suffix(".md").exists()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "dog"}, "objective"),
        ({"pooling": "max"}, "pooling"),
        ({"objective": "label", "pooling": "mean"}, "demo_vit.*pooling='mean'"),
    ],
)
def test_what_has_no_weights_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        demo_vit(**options)


@pytest.mark.parametrize(("pooling", "reads"), [("cls", "CLS"), ("mean", "patches"), ("attention", "patches")])
def test_the_classifier_reads_what_its_pooling_says(pooling: str, reads: str) -> None:
    """Found by gradients of the logits with respect to the tokens behind the blocks."""
    model, images = demo_vit(pooling=pooling), digit_scenes(2).images
    tokens = model.forward_intermediates(images, norm=False, intermediates_only=False)[0].detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.forward_head(model.norm(tokens)).sum(), tokens)
    read = gradient.ne(0).any(-1)
    assert read[:, 0].all() == (reads == "CLS") and read[:, 1:].all() == (reads == "patches")
    assert read.any(1).all() and (read[:, 0] != read[:, 1]).all()


def test_weights_survive_the_file(tmp_path) -> None:
    model, other = demo_vit(pretrained=False), demo_vit(pretrained=False)
    save_weights(model, tmp_path / "weights.safetensors")
    load_weights(other, tmp_path / "weights.safetensors")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)


def test_missing_weights_say_what_to_do(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="model cards"):
        load_weights(demo_vit(pretrained=False), tmp_path / "none.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "pooling"), SHIPPED)
def test_it_names_held_out_digits(objective: str, pooling: str) -> None:
    accuracy = evaluate(demo_vit(objective=objective, pooling=pooling), seed=1, n=250)
    assert accuracy.single > 0.94
    assert accuracy.both > 0.79


@pytest.mark.slow
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_logit_of_a_model_that_names_all_digits_is_about_its_digit(pooling: str) -> None:
    own, other, share, _ = effect(demo_vit(pooling=pooling), seed=1, n=100)
    assert own > 5 > abs(other) and share < 0.3


@pytest.mark.slow
def test_a_logit_of_the_model_trained_on_labels_is_as_much_about_the_other_digit() -> None:
    own, other, share, _ = effect(demo_vit(objective="label"), seed=1, n=100)
    assert own > 5 and other < -4 and share > 0.6


def test_targets_are_uniform_over_the_digits_present() -> None:
    targets = targets_of(torch.tensor([[3, -1, -1], [0, 9, 4]]))
    assert targets[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    torch.testing.assert_close(targets[1, [0, 4, 9]], torch.full((3,), 1 / 3))
    torch.testing.assert_close(targets.sum(1), torch.ones(2))


SHORT = ("--batch=2", "--test=20", "--every=1", "--grow=1", "--steps=2", "--lr=1", "--lr-rest=1")  # steps that show


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_phase_begins_with_the_blocks_of_an_earlier_one(pooling: str, tmp_path) -> None:
    """And with its norm, in front of the pooling or behind it; an attention pooling keeps its own weights."""
    earlier, model = demo_vit(pretrained=False), demo_vit(pretrained=False, pooling=pooling)
    with torch.no_grad():
        earlier.norm.weight.fill_(2)
    save_weights(earlier, tmp_path / "earlier.safetensors")
    own = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith("attn_pool.")}
    begin(model, tmp_path / "earlier.safetensors")
    torch.testing.assert_close(model.blocks[2].mlp.fc1.weight, earlier.blocks[2].mlp.fc1.weight, rtol=1e-3, atol=1e-6)
    assert (model.fc_norm if pooling == "mean" else model.norm).weight.eq(2).all()
    assert bool(own) == (pooling == "attention")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in own.items())


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_the_script_goes_on_from_an_earlier_phase(pooling: str, monkeypatch, tmp_path) -> None:
    out, start = tmp_path / "new.safetensors", weights_of("digits")
    options = [f"--out={out}", f"--pooling={pooling}", f"--start={start}", "--loss=digits", "--no-muon", "--no-bf16"]
    monkeypatch.setattr("sys.argv", ["train", *options, *SHORT])
    RECIPE.main()
    begun, made = demo_vit(pretrained=False, pooling=pooling), demo_vit(pretrained=False, pooling=pooling)
    begin(begun, start)
    load_weights(made, out)
    assert not torch.allclose(made.blocks[0].attn.qkv.weight, begun.blocks[0].attn.qkv.weight, atol=1e-3)
    page = out.with_suffix(".md").read_text()
    assert f'pooling="{pooling}"' in page and "AdamW for the matrices" in page
