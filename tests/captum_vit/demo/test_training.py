"""The scripts that trained the demo models: one recipe each, one loop."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

import captum_vit.demo
from captum_vit.demo.training import Recipe, schedule
from captum_vit.demo.weights import read_weights

ROOMS = ("digits", "digits.swin", "captions", "reviews", "sounds", "facts", "scene_questions")
SHORT = ("--batch=2", "--test=10", "--every=1", "--steps=2", "--warmup=1", "--lr=1", "--lr-rest=1")  # steps that show
FAST = ("--no-muon", "--no-bf16")
OWN = {
    "digits": ("--grow=1", "--loss=digits", *FAST),
    "captions": FAST,
    "reviews": ("--grow=1",),
    "sounds": ("--clips=4",),
}
CARDS = sorted(Path(captum_vit.demo.__file__).parent.rglob("weights/*.md"))


def recipe_of(room: str) -> Recipe:
    return import_module(f"captum_vit.demo.{room}.train").RECIPE


def train(monkeypatch: pytest.MonkeyPatch, folder: Path, room: str, *options: str) -> dict[str, Tensor]:
    """Run a script for a moment and return the weights it wrote."""
    monkeypatch.setattr("captum_vit.demo.sounds.train.PORTION", 4)
    out = folder / "new.safetensors"
    monkeypatch.setattr("sys.argv", ["train", f"--out={out}", *SHORT, *OWN.get(room, ()), *options])
    recipe_of(room).main()
    return read_weights(out)


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_a_script_trains_and_writes_a_card(room: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = recipe_of(room)
    made = train(monkeypatch, tmp_path, room)
    torch.manual_seed(0)
    args = recipe.parser().parse_args(["--out=x", *OWN.get(room, ())])
    trained = recipe.model(args)
    recipe.losses(trained, args)  # which may fill the model first
    begun = recipe.stored(trained).state_dict()
    assert all(tensor.isfinite().all() for tensor in made.values())
    moved = [name for name in begun if not torch.allclose(made[name], begun[name], atol=0.01)]
    assert len(moved) > len(begun) / 3
    assert f"python -m {recipe.script} --out" in (tmp_path / "new.md").read_text()


def test_a_broken_run_goes_on_as_if_it_had_not_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keep = f"--checkpoint={tmp_path / 'run.safetensors'}"
    whole = train(monkeypatch, tmp_path, "facts", keep)
    with pytest.raises(SystemExit, match="--overwrite"):
        train(monkeypatch, tmp_path, "facts")

    def stopping(step: int, steps: int, warmup: int) -> float:
        if step >= 1:
            raise KeyboardInterrupt
        return schedule(step, steps, warmup)

    (tmp_path / "run.safetensors").unlink()
    with monkeypatch.context() as broken:
        broken.setattr("captum_vit.demo.training.schedule", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(broken, tmp_path, "facts", keep, "--overwrite")
    resumed = train(monkeypatch, tmp_path, "facts", keep, "--overwrite")
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: f"{card.parts[-3]} {card.stem}")
def test_the_commands_of_a_card_are_understood(card: Path) -> None:
    """By the script as it is now."""
    commands = re.findall(r"^    python -m (\S+) (.+)$", card.read_text("utf-8"), re.MULTILINE)
    assert commands
    for script, options in commands:
        recipe = import_module(script).RECIPE
        assert recipe.script == script
        args = recipe.parser().parse_args(shlex.split(options))
        assert None not in (args.steps, args.batch, args.lr, args.lr_rest, args.ema, args.test, args.every)
