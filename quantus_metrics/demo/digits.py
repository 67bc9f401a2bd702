"""The demonstration: digit scenes explained for both of their digits by every method, and marked.

What is right is known here: in a scene of two digits the map for a digit should lie on that digit.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from captum.attr import Attribution
from torch import Tensor, nn
from tqdm import tqdm

from captum_vit import METHODS, demo, viz
from captum_vit.models.reading import class_names
from captum_vit.viz.files import check_target, write_figure, write_whole
from quantus_metrics.metrics.fidelity import fidelity
from quantus_metrics.metrics.pointing import chance, pointing_accuracy
from quantus_metrics.metrics.segmentation import mean_iou
from quantus_metrics.perturb import curves

TOLERANCE = 4  # pixels beside a stroke that still count as pointing at it
BATCH = 25


@dataclass(frozen=True)
class Mark:
    """What a method got, and what it cost."""

    method: str
    pointing: float  # share of maps whose maximum lies on the target's digit
    iou: float  # mean intersection over union with the digit's strokes
    fidelity: float  # logits; area LIF less area MIF, mean over the curve
    cost: float  # time as a ratio to the plain forward pass


@dataclass(frozen=True)
class Task:
    """Every digit of every scene as a target of its own; S = scenes x digits."""

    images: Tensor  # shape: (S, 3, H, W), normalised
    pixels: Tensor  # shape: (S, 3, H, W), in [0, 1]
    targets: Tensor  # shape: (S,)
    masks: Tensor  # shape: (S, H, W)

    def __len__(self) -> int:
        return len(self.targets)


def two_digit_task(n_scenes: int, seed: int) -> Task:
    """Scenes of two held-out digits, each explained for both."""
    scenes = demo.digit_scenes(n_scenes, n_digits=2, split="test", seed=seed)
    return Task(
        scenes.images.repeat_interleave(2, 0),
        scenes.pixels.repeat_interleave(2, 0),
        scenes.digits.flatten(),
        scenes.masks.flatten(0, 1),
    )


def explain_all(method: Attribution, task: Task, progress: tqdm) -> Tensor:  # shape: (S, 1, h, w)
    """One map for each target, in batches."""
    maps = []
    for rows in torch.arange(len(task)).split(BATCH):
        maps.append(method.attribute(task.images[rows], target=task.targets[rows]))
        progress.update(len(rows))
    return torch.cat(maps)


def cost(method: Attribution, model: nn.Module, task: Task, repeats: int = 3) -> float:
    """The method's time by the plain forward's on one batch: process time, median of pairs."""
    x, target = task.images[:BATCH], task.targets[:BATCH]

    def plain() -> None:
        with torch.inference_mode():
            model(x)

    def seconds(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    plain()
    return statistics.median(
        seconds(lambda: method.attribute(x, target=target)) / seconds(plain) for _ in range(repeats)
    )


def mark(
    name: str, method: Attribution, model: nn.Module, task: Task, n_fidelity: int, progress: tqdm
) -> tuple[Mark, Tensor]:
    """A method's marks and its maps; fidelity, which costs 40 passes for each, on the first few."""
    maps = explain_all(method, task, progress)
    some = slice(n_fidelity)
    found = curves(model, task.images[some], task.targets[some], maps[some], internal_batch_size=200)
    faithful = fidelity(found["mif"], found["lif"], normalised=True).mean().item()
    progress.update(n_fidelity)
    return Mark(
        name,
        pointing_accuracy(maps, task.masks, TOLERANCE),
        mean_iou(maps, task.masks),
        faithful,
        cost(method, model, task),
    ), maps


def run(out: Path, n_scenes: int = 100, n_fidelity: int = 20, seed: int = 0, overwrite: bool = False) -> list[Mark]:
    """Explain, mark, print the table and draw the picture; the marks, best pointing first."""
    out = check_target(out, {".png", ".pdf", ".svg"}, overwrite)
    torch.manual_seed(seed)  # RandomAttribution draws from the global generator
    model, task = demo.demo_vit(), two_digit_task(n_scenes, seed)
    marks, drawn = [], {}
    with tqdm(total=len(METHODS) * (len(task) + n_fidelity), unit="map", desc="explaining") as progress:
        for name, make in METHODS.items():
            progress.set_description(name)
            found, maps = mark(name, make(model), model, task, n_fidelity, progress)
            marks.append(found)
            drawn[name] = maps[:4]
    draw(model, task, drawn, out)
    marks.sort(key=lambda found: -found.pointing)
    print(table(marks, task))
    print(f"\nThe first two scenes, explained by every method: {out}")
    return marks


def draw(model: nn.Module, task: Task, maps: Mapping[str, Tensor], out: Path) -> None:
    """Input, mask and one column per method; one row per target."""
    n = len(next(iter(maps.values())))
    names = class_names(model) or {}
    figure = viz.panels(
        list(task.pixels[:n]),
        maps,
        rows=[names[target] for target in task.targets[:n].tolist()],
        masks=task.masks[:n],
    )
    write_whole(out, lambda path: write_figure(figure, out.suffix[1:], path))


def table(marks: list[Mark], task: Task) -> str:
    """The marks as Markdown."""
    lines = [
        f"{len(task)} maps of two-digit scenes. Pointing: the maximum lies within {TOLERANCE} pixels of the target "
        f"digit's strokes (a random point: {chance(task.masks, TOLERANCE):.2f}).",
        "mIoU: with the strokes. Fidelity: logits, LIF - MIF. Time: ratio to the plain forward pass.",
        "",
        "| method | pointing | mIoU | fidelity | time |",
        "|---|--:|--:|--:|--:|",
    ]
    lines += [f"| {m.method} | {m.pointing:.3f} | {m.iou:.3f} | {m.fidelity:+.2f} | {m.cost:.2f} |" for m in marks]
    return "\n".join(lines)
