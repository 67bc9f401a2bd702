"""Maps at every block of the demo Swin, by plain hooks: where they point, and what they agree with.

    python -m tests.benchmarks.swin [--scenes 50] [--fidelity 20] [--seed 1]

Every digit of two-digit scenes is explained. *pointing*: the maximum lies within 4 pixels of the digit. *LIF - MIF*:
fidelity on cells of 8 x 8 pixels, in logits, on the first maps. *ablation*: mean correlation, over maps, with what the
logit loses when a token behind the patches becomes the mean of its image's tokens. Coarser maps are spread evenly over
the patches that their cells cover. These are twins of the package's methods: a leaf at the site, one backward pass, and
the package's rule.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_vit.demo import demo_swin, digit_scenes
from captum_vit.trace.modes.rules import under
from quantus_metrics.metrics.fidelity import fidelity
from quantus_metrics.metrics.pointing import pointing_accuracy
from quantus_metrics.perturb import curves

TOLERANCE = 4  # pixels beside a stroke
BATCH = 50
Maps = Callable[[Tensor, Tensor], Tensor]


def token_x_gradient(model: nn.Module, site: nn.Module, enters: bool, rule: str) -> Maps:
    """The product of tokens (B, h, w, C) and their gradients where they enter a module, or leave it: (B, h, w)."""

    def maps(images: Tensor, target: Tensor) -> Tensor:
        leaves: list[Tensor] = []

        def leaf(x: Tensor) -> Tensor:
            leaves.append(x.detach().requires_grad_())
            return leaves[-1]

        if enters:
            handle = site.register_forward_pre_hook(lambda _, args: (leaf(args[0]),))
        else:
            handle = site.register_forward_hook(lambda _, args, out: leaf(out))
        try:
            with under(rule):
                score = model(images).gather(1, target[:, None]).sum()
        finally:
            handle.remove()
        (gradient,) = torch.autograd.grad(score, leaves[0])
        return (leaves[0] * gradient).sum(-1).detach()

    return maps


def token_ablation(model: nn.Module) -> Maps:
    """What the logit loses when a token behind the patches becomes the mean of its image's tokens: (B, h, w)."""

    @torch.no_grad()
    def maps(images: Tensor, target: Tensor) -> Tensor:
        tokens = model.patch_embed(images)  # shape: (B, h, w, C)

        def logit(x: Tensor) -> Tensor:
            return model.forward_head(model.norm(model.layers(x))).gather(1, target[:, None]).squeeze(1)

        whole, mean = logit(tokens), tokens.mean((1, 2))
        lost = torch.empty(tokens.shape[:3])
        for row, column in torch.cartesian_prod(*map(torch.arange, tokens.shape[1:3])).tolist():
            without = tokens.clone()
            without[:, row, column] = mean
            lost[:, row, column] = whole - logit(without)
        return lost

    return maps


def summed(several: list[Maps]) -> Maps:
    """The sum of maps of different grids; a cell's relevance is shared out over the patches that it covers."""
    return lambda images, target: torch.stack([on_patches(maps(images, target)) for maps in several]).sum(0)


def on_patches(maps: Tensor, side: int = 8) -> Tensor:
    """Maps (B, h, w) on the grid of the patches; every cell covers the same number of these."""
    times = side // maps.shape[-1]
    return maps.repeat_interleave(times, 1).repeat_interleave(times, 2) / times**2


def candidates(model: nn.Module) -> dict[str, Maps]:
    """The twins by name: PLUS over all start blocks, and over those of the first stage."""
    blocks = [block for stage in model.layers for block in stage.blocks]
    decompx = [token_x_gradient(model, block, True, "frozen") for block in blocks]
    twins = {f"DecompX from block {i}": maps for i, maps in enumerate(decompx)}
    twins |= {"PLUS(DecompX)": summed(decompx), "PLUS(DecompX), first stage": summed(decompx[:4])}
    twins["CAT"] = summed([token_x_gradient(model, block, True, "grad") for block in blocks])
    for rule in ("grad", "frozen"):
        for i, block in enumerate(blocks):
            twins[f"LayerCDAM, block {i}, {rule}"] = token_x_gradient(model, block.norm1, False, rule)
    return twins


def correlation(maps: Tensor, other: Tensor) -> float:
    """Pearson's r over the cells of each map, the mean of the maps."""
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (maps, other))
    return F.cosine_similarity(a, b).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--fidelity", type=int, default=20, help="maps; each costs 40 passes")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    torch.set_num_threads(1)
    model, scenes = demo_swin(), digit_scenes(options.scenes, 2, seed=options.seed)
    images, target = scenes.images.repeat_interleave(2, 0), scenes.digits.flatten()
    batches = torch.arange(len(images)).split(BATCH)
    few = slice(options.fidelity)
    ablation = token_ablation(model)
    lost = torch.cat([ablation(images[rows], target[rows]) for rows in batches])
    torch.manual_seed(0)
    known = {"token ablation": lost, "random": torch.randn(lost.shape)}
    print(f"{len(images)} maps\n\n| | pointing | LIF - MIF | ablation |\n|---|--:|--:|--:|")
    for name, explain in (dict.fromkeys(known) | candidates(model)).items():
        maps = torch.cat([explain(images[rows], target[rows]) for rows in batches]) if explain else known[name]
        points = pointing_accuracy(maps, scenes.masks.flatten(0, 1), TOLERANCE)
        found = curves(model, images[few], target[few], on_patches(maps[few]), internal_batch_size=200)
        faithful = fidelity(found["mif"], found["lif"], normalised=True).mean().item()
        print(f"| {name} | {points:.3f} | {faithful:.2f} | {correlation(on_patches(maps), lost):.2f} |", flush=True)


if __name__ == "__main__":
    main()
