"""The demonstration: digit scenes explained for both of their digits by every method, and marked.

What is right is known here: in a scene of two digits the map for a digit should lie on that digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from captum.attr import Attribution
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from captum_vit import METHODS, demo, viz
from captum_vit.inputs.class_names import class_names
from captum_vit.viz.files import check_target, write_figure, write_whole
from quantus_metrics.demo.marks import FEW, SLOW, Asked, Mark, explained, table
from quantus_metrics.metrics.fidelity import fidelity
from quantus_metrics.metrics.pointing import chance, pointing_accuracy
from quantus_metrics.metrics.segmentation import mean_iou
from quantus_metrics.perturb import curves

TOLERANCE = 4  # pixels beside a stroke that still count as pointing at it
COLUMNS = {"pointing": ".3f", "mIoU": ".3f", "fidelity": "+.2f", "time": ".2f"}


@dataclass(frozen=True)
class Task:
    """Every digit of every scene as a target of its own; S = scenes x digits."""

    asked: Asked  # of normalised images, (S, 3, H, W)
    pixels: Tensor  # shape: (S, 3, H, W), in [0, 1]
    masks: Tensor  # shape: (S, H, W)

    def __len__(self) -> int:
        return len(self.asked)


def two_digit_task(n_scenes: int, seed: int) -> Task:
    """Scenes of two held-out digits, each explained for both."""
    scenes = demo.digit_scenes(n_scenes, n_digits=2, split="test", seed=seed)
    return Task(
        Asked(scenes.images.repeat_interleave(2, 0), scenes.digits.flatten()),
        scenes.pixels.repeat_interleave(2, 0),
        scenes.masks.flatten(0, 1),
    )


def mark(
    name: str, method: Attribution, model: nn.Module, task: Task, n_fidelity: int, progress: tqdm
) -> tuple[Mark, Tensor]:
    """A method's marks and its maps; fidelity, which costs 40 passes for each, on the first few."""
    maps, time = explained(method, model, task.asked, progress)
    masks = task.masks[: len(maps)]
    few = task.asked.rows(slice(n_fidelity))
    found = curves(model, few.inputs, few.targets, maps[:n_fidelity], internal_batch_size=200)
    progress.update(n_fidelity)
    values = {
        "pointing": pointing_accuracy(maps, masks, TOLERANCE),
        "mIoU": mean_iou(maps, masks),
        "fidelity": fidelity(found["mif"], found["lif"], normalised=True).mean().item(),
        "time": time,
    }
    return Mark(name, values), maps


def run(out: Path, n: int = 20, seed: int = 0, overwrite: bool = False, n_fidelity: int = 5) -> list[Mark]:
    """Explain, mark, print the table and draw the picture; the marks, best pointing first."""
    out = check_target(out, {".png", ".pdf", ".svg"}, overwrite)
    torch.manual_seed(seed)  # RandomAttribution draws from the global generator
    model, task = demo.demo_vit(), two_digit_task(n, seed)
    marks, drawn = [], {}
    with tqdm(total=len(METHODS) * (len(task) + n_fidelity), unit="map", desc="explaining") as progress:
        for name, make in METHODS.items():
            progress.set_description(name)
            found, maps = mark(name, make(model), model, task, n_fidelity, progress)
            marks.append(found)
            drawn[name] = maps[:2]
    marks.sort(key=lambda found: -found.values["pointing"])
    titled = {f"{found.method}  {found.values['pointing']:.2f}": drawn[found.method] for found in marks}
    figure = draw(model, task, titled)
    write_whole(out, partial(write_figure, figure, out.suffix[1:]))
    print(about(task), table(marks, COLUMNS), sep="\n\n")
    print(f"\nThe first scene, explained for both digits by every method, in the order of the table: {out}")
    return marks


def draw(model: nn.Module, task: Task, maps: Mapping[str, Tensor]) -> Figure:
    """The first scene, the masks of its two digits, and a cell with two maps for each method."""
    names = class_names(model) or {}
    first = [names[target] for target in task.asked.targets[:2].tolist()]
    return viz.gallery(list(task.pixels[:2]), maps, names=first, masks=task.masks[:2])


def about(task: Task) -> str:
    """What the columns mean."""
    return (
        f"{len(task)} maps of two-digit scenes. Pointing: the maximum lies within {TOLERANCE} pixels of the target "
        f"digit's strokes (a random point: {chance(task.masks, TOLERANCE):.2f}).\n"
        f"mIoU: with the strokes. Fidelity: logits, LIF - MIF. Time: ratio to the plain forward pass; above {SLOW}, "
        f"marks are of the first {FEW} maps alone."
    )
