"""The shipped classifier is what its card says."""

import pytest
import timm
import torch

from captum_vit.demo import demo_vit, digit_scenes
from captum_vit.demo.digits.evaluation import effect, evaluate
from captum_vit.demo.digits.model import OBJECTIVES, weights_of
from captum_vit.demo.digits.train import main, targets_of
from captum_vit.demo.training import schedule
from captum_vit.demo.weights import load_weights, save_weights


def test_it_is_an_ordinary_timm_model() -> None:
    model = demo_vit(pretrained=False)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 64, 64) and config["crop_pct"] == 1.0
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    assert model.pretrained_cfg["label_names"][7] == "seven"
    assert not model.training and model.num_prefix_tokens == 1
    assert model(digit_scenes(2).images).shape == (2, 10)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_weights_are_small_and_come_as_float32(objective: str) -> None:
    assert weights_of(objective).stat().st_size < 3_000_000
    assert weights_of(objective).with_suffix(".md").exists()
    assert {parameter.dtype for parameter in demo_vit(objective=objective).parameters()} == {torch.float32}


def test_an_unknown_objective_is_refused() -> None:
    with pytest.raises(ValueError, match="objective"):
        demo_vit(objective="dog")


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
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_names_held_out_digits(objective: str) -> None:
    accuracy = evaluate(demo_vit(objective=objective), seed=1, n=250)
    assert accuracy.single > 0.94
    assert accuracy.both > 0.79


@pytest.mark.slow
def test_what_a_logit_is_about() -> None:
    """Of the model that names all digits, its digit; of the one trained on labels, as much the other digit."""
    own, other, share, _ = effect(demo_vit(), seed=1, n=100)
    assert own > 5 > abs(other) and share < 0.3
    own, other, share, _ = effect(demo_vit(objective="label"), seed=1, n=100)
    assert own > 5 and other < -4 and share > 0.6


def test_targets_are_uniform_over_the_digits_present() -> None:
    targets = targets_of(torch.tensor([[3, -1, -1], [0, 9, 4]]))
    assert targets[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    torch.testing.assert_close(targets[1, [0, 4, 9]], torch.full((3,), 1 / 3))
    torch.testing.assert_close(targets.sum(1), torch.ones(2))


RECIPE = ("--batch=2", "--test=20", "--every=1", "--grow=1", "--steps=2", "--lr=1", "--lr-rest=1")  # steps that show


def _train(monkeypatch, folder, *options: str) -> dict[str, torch.Tensor]:
    """Run the training script for a moment and return the weights it wrote."""
    recipe = [f"--checkpoint={folder / 'run.safetensors'}", *RECIPE, *options]
    monkeypatch.setattr("sys.argv", ["train", f"--out={folder / 'new.safetensors'}", *recipe])
    main()
    model = demo_vit(pretrained=False)
    load_weights(model, folder / "new.safetensors")
    return model.state_dict()


@pytest.mark.slow
def test_the_script_writes_a_card_and_a_broken_run_goes_on_as_if_it_had_not_broken(monkeypatch, tmp_path) -> None:
    whole = _train(monkeypatch, tmp_path)
    assert all(tensor.isfinite().all() for tensor in whole.values())
    assert "python -m captum_vit.demo.digits.train" in (tmp_path / "new.md").read_text()
    with pytest.raises(SystemExit, match="--overwrite"):
        _train(monkeypatch, tmp_path)

    (tmp_path / "run.safetensors").unlink()
    monkeypatch.setattr("captum_vit.demo.digits.train.schedule", _stop_after(1))
    with pytest.raises(KeyboardInterrupt):
        _train(monkeypatch, tmp_path, "--overwrite")
    monkeypatch.undo()
    resumed = _train(monkeypatch, tmp_path, "--overwrite")
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor)


def _stop_after(calls: int):
    """The schedule, interrupted at a later call."""

    def stopping(step: int, steps: int) -> float:
        if step >= calls:
            raise KeyboardInterrupt
        return schedule(step, steps)

    return stopping
