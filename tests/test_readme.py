"""The README's code runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

import captum_vit as cv

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(containing: str) -> str:
    """The one block of code that holds these words."""
    (found,) = [code for code in BLOCKS if containing in code]
    return found


@pytest.mark.slow
def test_ten_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block("demo_vit()"), names)
    assert names["maps"].shape == (2, 1, 8, 8)
    assert names["every"].shape == (2, 10, 8, 8)
    assert (tmp_path / "explanation.png").stat().st_size > 1000


def test_quantus_evaluates(capsys: pytest.CaptureFixture) -> None:
    config = ViTConfig(image_size=32, patch_size=16, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                       intermediate_size=48, num_labels=3)  # fmt: skip
    names = {
        "cv": cv,
        "hugging_face_model": ViTForImageClassification(config).eval(),
        "x": torch.randn(2, 3, 32, 32).numpy(),
        "y": torch.tensor([0, 2]).numpy(),
    }
    exec(block("quantus.evaluate(").replace("quantus.evaluate(", "results = quantus.evaluate("), names)
    assert set(names["results"]) == {"CDAM", "PLUS"}
    for scores in names["results"].values():
        assert len(scores["Fidelity"]) == len(scores["Sparseness"]) == 2


def test_two_commands_and_their_pictures() -> None:
    assert 'pip install ".[demo]" && .venv/bin/captum-vit demo\n' in README
    assert 'pip install -c constraints.txt -e ".[dev]" && .venv/bin/python -m pytest -n 2\n' in README
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (Path(__file__).parents[1] / picture).is_file()
