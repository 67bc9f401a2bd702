"""What LXT's rules cost on torchvision's ViT of the same shape, as ``tests.benchmarks.cost`` measures it.

    python -m tests.benchmarks.lxt_cost vit_small_patch16_224 --batch 16 [--what memory]

LXT patches classes of torch for good, and so has a process of its own, in which the plain pass gets them back. For
this model it offers CP-LRP in attention (AttnLRP elsewhere). Prints one number.
"""

from __future__ import annotations

import argparse

import timm
import torch
from lxt.efficient import monkey_patch
from lxt.efficient.models import get_default_map
from torch import Tensor
from torchvision.models import vision_transformer

from tests.benchmarks.cost import TARGET, mebibytes, ratio, settled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the timm model whose shape it has")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--what", choices=["time", "memory"], default="time")
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()

    settled("cpu")
    rules = get_default_map(vision_transformer)
    own = {owner: owner.forward for owner in rules}
    monkey_patch(vision_transformer, rules)
    patched = {owner: owner.forward for owner in rules}
    model = torchvision_twin(options.model).eval().requires_grad_(False)  # as LXT advises
    put(own)

    def explain(x: Tensor) -> Tensor:
        put(patched)
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(model(x)[:, TARGET].sum(), x)
        put(own)
        return x.detach() * grad

    x = torch.randn(options.batch, 3, 224, 224)
    print(mebibytes(explain, x) if options.what == "memory" else ratio(model, explain, x, budget=options.seconds))


def put(forwards: dict) -> None:
    for owner, forward in forwards.items():
        owner.forward = forward


def torchvision_twin(name: str) -> vision_transformer.VisionTransformer:
    """Of the same width, depth and heads."""
    like = timm.create_model(name)
    block = like.blocks[0]
    return vision_transformer.VisionTransformer(
        224, 16, len(like.blocks), block.attn.num_heads, like.embed_dim, block.mlp.fc1.out_features
    )


if __name__ == "__main__":
    main()
