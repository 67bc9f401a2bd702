"""How every demo model is trained: a :class:`Recipe`, its command line, and the loop.

Two optimizers, a short warm-up and a cosine, a running average of the weights, checkpoints. What is stored is the
average, rounded to float16; what is measured is what is stored; its card lies beside it.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import trange

from captum_vit.demo.evaluation import TEST_SEED
from captum_vit.demo.weights import load_weights, save_weights
from captum_vit.extras import extra

Figures = tuple[Any, ...]  # what is measured of a model: named tuples


def _no_options(parser: argparse.ArgumentParser) -> None:
    """None beside those of every script."""


def _itself(trained: nn.Module) -> nn.Module:
    """All that is trained is stored."""
    return trained


@dataclass(frozen=True)
class Recipe:
    """One demo model's training.

    Args:
        script: the dotted name of the script.
        about: what it does, for ``--help``.
        model: what is trained, of random weights, in eval mode.
        losses: takes the model and the options and gives the loss of each step. It may fill the model first.
        measure: takes a model, a seed, a number of inputs and a split, and gives its figures.
        card: takes the model, the options, each of its figures, and the command; the text of the card.
        blocks: the name that every parameter inside a block carries.
        defaults: of the options; all of them together are the recipe.
        options: adds options of its own to the command line.
        stored: the part of what is trained that is stored.
    """

    script: str
    about: str
    model: Callable[[argparse.Namespace], nn.Module]
    losses: Callable[[Any, argparse.Namespace], Callable[[int], Tensor]]
    measure: Callable[[Any, int, int, str], Figures]
    card: Callable[..., str]
    blocks: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    options: Callable[[argparse.ArgumentParser], None] = _no_options
    stored: Callable[[Any], nn.Module] = _itself

    def main(self) -> None:
        """Train, store, read the stored file back and print what it can do."""
        args = self.parser().parse_args()
        page = card_beside(args.out, args.overwrite)
        torch.set_num_threads(args.threads)
        save_weights(self.train(args), args.out)

        model = self.stored(self.model(args))
        load_weights(model, args.out)
        figures = self.measure(model, TEST_SEED, args.test, "test")
        print("held out:", *figures, sep="\n")
        page.write_text(self.card(model, args, *figures, f"python -m {self.script} {shlex.join(sys.argv[1:])}"))

    def train(self, args: argparse.Namespace) -> nn.Module:
        """Train, or go on from ``args.checkpoint`` where that exists; the averaged model."""
        torch.manual_seed(args.seed)
        model = self.model(args)
        loss_at = self.losses(model, args)
        average = deepcopy(model)
        model.train()
        optimizers = optimizers_of(model, self.blocks, args.lr, args.lr_rest, args.decay, args.muon)
        parts = {"model": model, "average": average}
        start = resume_run(args.checkpoint, parts, optimizers)
        for step in (bar := trange(start, args.steps, initial=start, total=args.steps, mininterval=10)):
            loss = loss_at(step)
            model.zero_grad()
            loss.backward()
            take_step(optimizers, schedule(step, args.steps, args.warmup))
            blend(average, model, weight=max(1 - args.ema, 1 / (step + 1)))
            if (step + 1) % args.every == 0:
                # Of a seed that no step has: other inputs of the training split.
                figures = self.measure(self.stored(average), -1 - args.seed, max(args.test // 10, 1), "train")
                bar.write(f"step {step + 1}: loss {loss.item():.4f}, {figures} on the training split")
                save_run(args.checkpoint, step + 1, parts, optimizers)
        return self.stored(average)

    def parser(self) -> argparse.ArgumentParser:
        """The command line; its defaults are the recipe."""
        options = argparse.ArgumentParser(self.script, description=self.about)
        add = options.add_argument
        add("--out", type=Path, required=True, help="file to write; its card, a .md file, goes beside it")
        add("--overwrite", action="store_true", help="replace --out where it exists")
        add("--steps", type=int)
        add("--batch", type=int)
        add("--seed", type=int, default=0)
        add("--warmup", type=int, default=300, help="steps until the peak learning rate")
        add("--lr", type=float, help="peak learning rate of the blocks' matrices")
        add("--lr-rest", type=float, help="peak learning rate of everything else")
        add("--decay", type=float, default=0.05, help="weight decay of the blocks' matrices")
        add("--muon", action=argparse.BooleanOptionalAction, default=True, help="for the blocks' matrices; or AdamW")
        add("--ema", type=float, help="decay of the running average of the weights")
        add("--threads", type=int, default=1)
        add("--test", type=int, help="held-out inputs of each kind for the final figures")
        add("--every", type=int, help="steps between looks at how it goes, and checkpoints")
        add("--checkpoint", type=Path, help="keep the state of the run here; go on from it if it exists")
        self.options(options)
        options.set_defaults(**self.defaults)
        return options


def optimizers_of(
    model: nn.Module, blocks: str, lr: float, lr_rest: float, decay: float, muon: bool = True
) -> list[Optimizer]:
    """One optimizer for the matrices inside the blocks, and AdamW for everything else.

    Args:
        model: what is trained: the parameters that require a gradient.
        blocks: the name that every parameter inside a block carries.
        lr: peak learning rate of the blocks' matrices.
        lr_rest: peak learning rate of everything else.
        decay: weight decay of the blocks' matrices.
        muon: Muon for the blocks' matrices, or AdamW for them too. Muon computes in bfloat16: where the CPU has no
            instructions for it, a step of a small model takes longer than its gradients.
    """
    learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in learned if blocks in name and p.ndim == 2]
    others = [p for name, p in learned if not (blocks in name and p.ndim == 2)]
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
