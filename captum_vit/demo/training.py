"""What the demo models' training scripts share: two optimizers, a schedule, a running average, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from captum_vit.extras import extra


def optimizers_of(
    model: nn.Module, blocks: str, lr: float, lr_rest: float, decay: float, muon: bool = True
) -> list[Optimizer]:
    """One optimizer for the matrices inside the blocks, and AdamW for everything else.

    Args:
        model: what is trained.
        blocks: the name that every parameter inside a block carries.
        lr: peak learning rate of the blocks' matrices.
        lr_rest: peak learning rate of everything else.
        decay: weight decay of the blocks' matrices.
        muon: Muon for the blocks' matrices, or AdamW for them too. Muon computes in bfloat16: where the CPU has no
            instructions for it, a step of a small model takes longer than its gradients.
    """
    matrices = [p for name, p in model.named_parameters() if blocks in name and p.ndim == 2]
    others = [p for name, p in model.named_parameters() if not (blocks in name and p.ndim == 2)]
    inside = (
        torch.optim.Muon(matrices, lr, decay, adjust_lr_fn="match_rms_adamw")
        if muon
        else torch.optim.AdamW(matrices, lr, betas=(0.9, 0.98), weight_decay=decay)
    )
    outside = torch.optim.AdamW(others, lr_rest, betas=(0.9, 0.98), weight_decay=0.0)
    for group in _groups([inside, outside]):
        group["peak"] = group["lr"]
    return [inside, outside]


def take_step(optimizers: Sequence[Optimizer], share: float) -> None:
    """One step of every optimizer at a share of its peak learning rate."""
    for group in _groups(optimizers):
        group["lr"] = group["peak"] * share
    for optimizer in optimizers:
        optimizer.step()


def _groups(optimizers: Sequence[Optimizer]) -> Iterator[dict[str, Any]]:
    return (group for optimizer in optimizers for group in optimizer.param_groups)


def schedule(step: int, steps: int, warmup: int = 300) -> float:
    """Share of the peak learning rate: a short warm-up, then a cosine down to zero."""
    return min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))


@torch.no_grad()
def blend(average: nn.Module, model: nn.Module, weight: float) -> None:
    """Move the running average of the weights towards the model."""
    for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(parameter, weight)


def card_beside(out: Path, overwrite: bool) -> Path:
    """Where the card of the weights goes: beside them, a .md file of the same name.

    Raises:
        SystemExit: one of the two files exists, and is not to be replaced. It is said before the training.
    """
    page = out.with_suffix(".md")
    for path in (out, page):
        if path.exists() and not overwrite:
            raise SystemExit(f"{path} exists. Pass --overwrite to replace it, or --out in another folder.")
    return page


def save_run(path: Path | None, step: int, parts: dict[str, nn.Module], optimizers: Sequence[Optimizer]) -> None:
    """Write every tensor that the run needs to go on; nothing where there is no path."""
    with extra("demo"):
        from safetensors.torch import save_file

    if path is None:
        return
    tensors = {f"{part}.{name}": tensor for part, of in parts.items() for name, tensor in of.state_dict().items()}
    for i, optimizer in enumerate(optimizers):
        for j, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer{i}.{j}.{name}": tensor for name, tensor in state.items()}
    new = path.with_suffix(".new")
    save_file(tensors, new, metadata={"step": str(step)})
    new.replace(path)  # in one move, so that an interruption leaves the old checkpoint whole


def resume_run(path: Path | None, parts: dict[str, nn.Module], optimizers: Sequence[Optimizer]) -> int:
    """Load a checkpoint into the run and return the step to go on from; 0 where there is none."""
    with extra("demo"):
        from safetensors import safe_open

    if path is None or not path.exists():
        return 0
    kept: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
        for key in file.keys():  # noqa: SIM118, the file is no dictionary
            part, name = key.split(".", 1)
            kept.setdefault(part, {})[name] = file.get_tensor(key)
    for part, of in parts.items():
        of.load_state_dict(kept[part])
    for i, optimizer in enumerate(optimizers):
        whole = optimizer.state_dict()
        for key, tensor in kept[f"optimizer{i}"].items():
            j, name = key.split(".")
            whole["state"].setdefault(int(j), {})[name] = tensor
        optimizer.load_state_dict(whole)
    return step
