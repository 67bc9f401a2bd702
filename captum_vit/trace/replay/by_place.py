"""Whether the outputs of a head belong to places, as those of a head with one output for each box of an image."""

from __future__ import annotations

import torch
from captum._utils.typing import TargetType
from torch import Tensor

from captum_vit.models.output import scores_of
from captum_vit.trace.replay.subnetwork import entering
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.score import mixed, select, target_of_rows

ALIKE = 1e-3  # relative; a sum in another order differs by rounding


def belong_to_places(
    call: Pass,
    tokens: Tensor,  # shape: (B, N, D), as they leave a block
    target: TargetType,
) -> bool:
    """Whether the target's output reads other tokens than the others do, and would be another if those were mixed up.

    Both are tried on the first sample, by the model's own code behind the blocks. What differs in the first and not in
    the second picks tokens by what they hold, as the largest. A target module whose outputs are those of one head on
    several tokens has none that belong to places.
    """
    if getattr(call.model, "one_head", False):
        return False
    one, transformer = call.of_first(), call.transformer
    first = target_of_rows(target, torch.zeros(1, dtype=torch.long))

    def scores(x: Tensor) -> Tensor:  # (1, N, D) -> (1, K)
        with entering(transformer, len(transformer.blocks), x.clone()):  # a model may write over it
            return scores_of(one.run())

    with torch.enable_grad():
        x = tokens[:1].detach().clone().requires_grad_()  # no tensor of inference mode
        output = scores(x)
        if output.dim() != 2 or output.shape[1] < 2 or not output.requires_grad:
            return False
        by_all = _read(mixed(output), x)
        if by_all is None or by_all.sum() < 2:  # one token has one place
            return False
        by_target = _read(select(output, 0 if first is None else first).sum(), x)
    if by_target is None or not by_target.any() or torch.equal(by_target, by_all):
        return False
    moved, read = x.detach().clone(), by_all.nonzero().squeeze(1)
    moved[:, read] = moved[:, read[torch.randperm(len(read), generator=torch.Generator().manual_seed(0))]]
    with torch.no_grad():
        before, after = scores(x.detach()), scores(moved)
    return bool((after - before).norm() > ALIKE * before.norm())


def _read(score: Tensor, x: Tensor) -> Tensor | None:  # shape: (N,)
    """The tokens where a gradient of the score arrives."""
    (g,) = torch.autograd.grad(score, x, retain_graph=True, allow_unused=True)
    return None if g is None else g[0].ne(0).any(-1)
