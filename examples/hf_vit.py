"""A Hugging Face vision transformer, explained as it was loaded: fused attention, bfloat16, classes by their names.

    python examples/hf_vit.py [--out FILE] [--overwrite]

Nothing is downloaded: the small ViT that ships with the package is written down as a checkpoint of transformers, and
loaded from there. With a model from the hub the one line that differs is

    model = AutoModelForImageClassification.from_pretrained("google/vit-base-patch16-224", dtype=torch.bfloat16)
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, ViTConfig, ViTImageProcessor

import captum_vit as cv
from captum_vit import viz
from captum_vit.demo import demo_vit, digit_scenes
from captum_vit.viz.files import check_target, write_figure, write_whole

METHODS = ("LayerCDAM", "PLUS(DecompX)", "VTranM", "GenAtt", "RawAttention")

# What timm calls a parameter, and what checkpoints on the hub call it.
NAMES = (
    (r"^blocks\.(\d+)\.", r"vit.encoder.layer.\1."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"^norm\.", "vit.layernorm."),
    (r"^head\.", "classifier."),
    (r"^cls_token$", "vit.embeddings.cls_token"),
    (r"^pos_embed$", "vit.embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "vit.embeddings.patch_embeddings.projection."),
)


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's weights one to one under the hub's names; queries, keys and values lie apart there."""
    found = {}
    for name, tensor in weights.items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        if ".attn.qkv." in name:
            for role, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[name.replace(".attn.qkv.", f".attention.attention.{role}.")] = part.contiguous()
        else:
            found[name] = tensor
    return found


def write_checkpoint(folder: Path) -> None:
    """Configuration, image processor and weights, as a download would leave them."""
    model = demo_vit()
    labels = dict(enumerate(model.pretrained_cfg["label_names"]))
    config = ViTConfig(
        image_size=64, patch_size=8, hidden_size=128, num_hidden_layers=6, num_attention_heads=4, intermediate_size=512,
        layer_norm_eps=1e-6, id2label=labels, label2id={name: k for k, name in labels.items()},
        architectures=["ViTForImageClassification"],
    )  # fmt: skip
    config.save_pretrained(folder)
    size, grey = {"height": 64, "width": 64}, [0.5, 0.5, 0.5]
    ViTImageProcessor(size=size, image_mean=grey, image_std=grey).save_pretrained(folder)
    save_file(renamed(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})


def main(out: Path, overwrite: bool) -> None:
    out = check_target(out, {".png", ".pdf", ".svg"}, overwrite)  # before the work
    scenes = digit_scenes(2, n_digits=2, seed=3)
    with TemporaryDirectory() as folder:
        write_checkpoint(Path(folder))
        exact = AutoModelForImageClassification.from_pretrained(folder)
        model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.bfloat16)
        with torch.no_grad():
            torch.testing.assert_close(exact(scenes.images).logits, demo_vit()(scenes.images), rtol=1e-4, atol=1e-4)
        print(f"{type(model).__name__}, {model.dtype}, {model.config._attn_implementation} attention")

        # A picture, a name: `explain` finds the model's own processor and its labels.
        pictures = [Image.fromarray((255 * p).byte().permute(1, 2, 0).numpy()) for p in scenes.pixels]
        names = [[model.config.id2label[digit] for digit in digits] for digits in scenes.digits.tolist()]
        for picture, targets in zip(pictures, names, strict=True):
            print(cv.explain(model, picture, target=targets))
        maps = {method: torch.cat([explained(model, p, t, method) for p, t in zip(pictures, names, strict=True)])
                for method in METHODS}  # fmt: skip

    rows = [name for targets in names for name in targets]
    figure = viz.panels([p for p in pictures for _ in range(2)], maps, rows=rows)
    write_whole(out, lambda path: write_figure(figure, out.suffix[1:], path))
    print(f"two scenes, each explained for both of its digits: {out}")


def explained(model: nn.Module, picture: Image.Image, targets: list[str], method: str) -> Tensor:  # (2, h, w)
    return cv.explain(model, picture, targets, method).map


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("hf_vit.png"), help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    args = parser.parse_args()
    main(args.out, args.overwrite)
