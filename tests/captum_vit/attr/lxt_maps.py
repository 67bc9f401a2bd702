"""Gradient x input of a torchvision ViT under the rules that the LXT package patches into torch.

It patches classes for good, and so has a process of its own: ``python lxt_maps.py FOLDER [CLASS ...]`` reads
``FOLDER/case.pt``, leaves the named classes of torch.nn unpatched, and writes ``FOLDER/maps.pt``. Nothing of captum_vit
is imported here, so that it need not be installed where LXT is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lxt.efficient import monkey_patch
from lxt.efficient.models import get_default_map
from lxt.efficient.rules import identity_rule_implicit_fn
from torch import Tensor
from torchvision.models import vision_transformer


def main(folder: Path, unpatched: list[str]) -> None:
    rules = get_default_map(vision_transformer)  # its only ones for this model: those of CP-LRP, and one for GELU
    left_out = {owner for owner in rules if owner.__name__ in unpatched}
    if len(left_out) != len(unpatched):
        raise SystemExit(f"LXT patches {[owner.__name__ for owner in rules]}, not all of {unpatched}")
    monkey_patch(vision_transformer, {owner: patch for owner, patch in rules.items() if owner not in left_out})
    identity_rule_implicit_fn.forward.__defaults__ = (0.0,)  # GELU(x) / (x + epsilon): not 1e-10
    case = torch.load(folder / "case.pt", weights_only=True)
    model = vision_transformer.VisionTransformer(**case["shape"]).double().eval()
    model.load_state_dict(case["weights"])
    torch.save(tokens_x_gradient(model, case["images"], case["targets"]), folder / "maps.pt")


def tokens_x_gradient(model: vision_transformer.VisionTransformer, images: Tensor, targets: Tensor) -> Tensor:
    """At the input of each block, summed over channels; shape: (L, B, N)."""
    seen = []

    def keep(block: torch.nn.Module, args: tuple[Tensor]) -> None:
        args[0].retain_grad()
        seen.append(args[0])

    for block in model.encoder.layers:
        block.register_forward_pre_hook(keep)
    model(images).gather(1, targets[:, None]).sum().backward()
    return torch.stack([(tokens * tokens.grad).sum(-1) for tokens in seen]).detach()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
