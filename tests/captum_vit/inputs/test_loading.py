"""Models by name: what is wrong is said in our words, and no file may run code."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from captum_vit.errors import CaptumVitError, InputError, UnsupportedModelError
from captum_vit.inputs.loading import load_model, load_weights

NAME = "test_vit"  # timm's smallest


class Pwned:
    """A pickle that would call a function when it is read."""

    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize("name", ["vit", "timm:", "keras:vit", ""])
def test_a_name_tells_its_library(name: str):
    with pytest.raises(InputError, match="timm:NAME"):
        load_model(name)


def test_an_unknown_timm_name_brings_near_ones():
    with pytest.raises(InputError, match="vit_tiny_patch16_224"):
        load_model("timm:vit_tiny_patch16_225")


def test_weights_that_cannot_be_fetched_are_told_of():
    with pytest.raises(InputError, match="checkpoint"):
        load_model(f"timm:{NAME}")
    with pytest.raises(InputError, match="tag"):
        load_model(f"timm:{NAME}.nobody")


def test_a_timm_model_comes_in_eval_mode():
    assert not load_model(f"timm:{NAME}", pretrained=False).training


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_checkpoint_brings_its_head(tmp_path: Path, suffix: str):
    model, path = timm.create_model(NAME, num_classes=5), tmp_path / f"weights{suffix}"
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}, "epoch": 3}, path)
    else:
        save_file(weights, path)
    loaded = load_model(f"timm:{NAME}", checkpoint=path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    torch.save({"head.weight": Pwned()}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="weights_only"):
        load_weights(tmp_path / "bad.pth")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_a_broken_checkpoint_is_refused(tmp_path: Path, suffix: str, content: bytes):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="weights"):
        load_weights(path)


def test_checkpoints_that_are_none_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="which is no file"):
        load_model(f"timm:{NAME}", checkpoint=tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="state dict"):
        load_weights(tmp_path / "list.pth")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match="architecture"):
        load_model(f"timm:{NAME}", checkpoint=tmp_path / "other.pth")


SMALL = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip


def test_a_hugging_face_folder_is_read(tmp_path: Path):
    ViTForImageClassification(ViTConfig(**SMALL, num_labels=4)).save_pretrained(tmp_path)
    model = load_model(f"hf:{tmp_path}")
    assert model.num_labels == 4 and not model.training
    with pytest.raises(CaptumVitError, match="alone"):
        load_model(f"hf:{tmp_path}", checkpoint="weights.pth")


def test_a_hugging_face_model_without_a_head_is_refused(tmp_path: Path):
    ViTModel(ViTConfig(**SMALL)).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="ViTModel"):
        load_model(f"hf:{tmp_path}")


def test_a_folder_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="save_pretrained"):
        load_model(f"hf:{tmp_path / 'none'}")
