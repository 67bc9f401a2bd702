"""The tables of docs/performance.md: what explanations cost on several shapes, and how that grows.

    python -m tests.benchmarks.speed [--parts tiny small ...] [--what time memory] [--figures FILE]
        [--seconds 3] [--device cuda] [--dtype bfloat16] [--minutes 7] [--shrunk]

Measures the parts that are named, as ``tests.benchmarks.cost`` does, and prints the tables: by default those of a CPU,
and on a GPU those of `CARD`, with the card's name. What is in the file of figures is not measured again, so parts can
be measured one after the other: memory, which is the same in every run, at any time, and time on a machine that does
nothing else. What a method refuses, what does not fit into memory, and what would begin after so many minutes (7 on a
GPU, so that all of it takes less than 8) is left out, and listed with the reason. ``--shrunk`` makes every shape tiny,
to try that all rows run.

LXT wants transformers before its release 5; ``LXT_PYTHON`` names a Python that has both. Without, its row is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from captum_vit.errors import CaptumVitError
from tests.benchmarks import cost, peers

TINY, SMALL, BASE = (f"vit_{size}_patch16_224" for size in ("tiny", "small", "base"))


class Shape(NamedTuple):
    """A model and a batch."""

    model: str
    batch: int = 1
    size: int = 224
    depth: int = 12


PARTS = {
    "tiny": [Shape(TINY), Shape(TINY, 16)],
    "small": [Shape(SMALL)],
    "small, 16": [Shape(SMALL, 16)],
    "base": [Shape(BASE)],
    "base, 16": [Shape(BASE, 16)],
    "tokens": [Shape(SMALL), Shape(SMALL, size=384), Shape(SMALL, size=512)],
    "depth": [Shape(SMALL, depth=6), Shape(SMALL), Shape(SMALL, depth=24)],
    "fixed": [Shape(TINY, size=32)],
}
CARD = {
    "large, 64": [Shape("vit_large_patch16_224", 64, depth=24)],
    "4096 tokens": [Shape("vit_large_patch16_dinov3", size=1024, depth=24)],
}
"""On a GPU: a large model with many images, and one whose tokens are many, with registers and rotary positions."""
SHAPES = [shape for part in list(PARTS)[:5] for shape in PARTS[part]]
KNOWN = {shape for shapes in PARTS.values() for shape in shapes}
FIXED = PARTS["fixed"][0]
"""Four patches, next to no arithmetic: what is left is what Python and torch take for each call of a layer."""
DIGITS = {"time": ".2f", "memory": ".0f", "fixed": ".1f"}
LEAST_PAIRS = 2
GRACE = 20
"""Seconds after the last minute in which a row may end."""
PLAIN, PLAIN_MS = "plain forward", "plain forward, ms"
LXT = "lxt CP-LRP (torchvision's model)"
LXT_PYTHON = os.environ.get("LXT_PYTHON", sys.executable)
PEERS = ["grad-cam GradCAM", "grad-cam LayerCAM", "captum LayerGradCam", "captum LayerGradientXActivation",
         "captum Saliency", "captum InputXGradient"]  # fmt: skip
SLOW = [f"captum LayerIntegratedGradients, {cost.STEPS} steps", f"captum NoiseTunnel(Saliency), {cost.STEPS} samples"]
GROWTH = [PLAIN_MS, PLAIN, *cost.AIMS, *cost.FLOORS, "grad-cam GradCAM", "captum LayerGradientXActivation"]
ROWS = [PLAIN_MS, PLAIN, *cost.AIMS, *cost.FLOORS, *PEERS, LXT, *SLOW]


class Figures:
    """By shape, row and kind ("time" or "memory"); also in a file, one a line, if there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.left_out = path, list[tuple[Shape, str, str]]()
        self.values: dict[tuple[Shape, str, str], float] = {}
        if path is not None and path.exists():
            for shape, row, kind, value in map(json.loads, path.read_text("utf-8").splitlines()):
                self.values[Shape(*shape), row, kind] = value

    def keep(self, shape: Shape, row: str, kind: str, value: float) -> None:
        self.values[shape, row, kind] = value
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([shape, row, kind, value]) + "\n")


def rows_of(shape: Shape) -> list[str]:
    """What is measured: everything where it is cheap."""
    if shape.model.endswith("dinov3"):
        # Floors are written for a plain ViT, and without a CLS tail every class is a backward pass of its own.
        return [row for row in ROWS if row not in (*cost.FLOORS, *SLOW, LXT, "LayerCDAM.all_classes")]
    if shape.depth > Shape("").depth:
        return ROWS
    if shape not in SHAPES:
        return GROWTH
    rows = [row for row in ROWS if row not in SLOW or shape == Shape(SMALL)]
    return rows if shape.model == TINY or shape.batch == 1 else [row for row in rows if row not in PEERS[1:]]


def shrunk(shape: Shape) -> Shape:
    """The same with next to no arithmetic."""
    return Shape(shape.model.replace("large", "small"), min(shape.batch, 2), 32, 2)


def kinds_of(shape: Shape, what: list[str]) -> list[str]:
    """Of a shape without arithmetic the times alone, not as ratios."""
    return what if shape != FIXED else ["fixed"] if "time" in what else []


def measure(shape: Shape, figures: Figures, options: argparse.Namespace, end: float) -> None:
    """Every row of a shape, where it is not known."""
    if time.monotonic() > end:
        figures.left_out.append((shape, "all rows", "no time is left"))
        return
    model = cost.built(shape.model, shape.size, shape.depth, options.device, options.dtype)
    x = torch.randn(shape.batch, 3, shape.size, shape.size).to(options.device, getattr(torch, options.dtype))
    explain = {**cost.candidates(model), **peers.captums(model)}
    try:
        explain |= peers.grad_cams(model)
    except ImportError as error:
        figures.left_out.append((shape, "grad-cam", str(error)))
    for row in rows_of(shape):
        for kind in kinds_of(shape, options.what):
            if (shape, row, kind) not in figures.values:
                try:
                    found = figure(shape, row, kind, model, explain, x, options, end)
                except (CaptumVitError, torch.OutOfMemoryError, TimeoutError) as error:
                    figures.left_out.append((shape, f"{row}, {kind}", " ".join(str(error).split())))
                    torch.cuda.empty_cache()
                    continue
                if found is not None:
                    figures.keep(shape, row, kind, found)
            model.zero_grad(set_to_none=True)  # what grad-cam leaves behind


def figure(
    shape: Shape, row: str, kind: str, model: nn.Module, explain: dict[str, cost.Explain], x: Tensor,
    options: argparse.Namespace, end: float,
) -> float | None:  # fmt: skip
    """What is measured for a cell of a table; None where it stays empty."""
    if (left := end - time.monotonic()) < 0:
        raise TimeoutError("no time is left")
    signal.alarm(0 if left == float("inf") else math.ceil(left) + GRACE)
    if row == LXT:
        return from_lxt(shape, kind, options.seconds) if options.device == "cpu" and has_lxt() else None
    if row == PLAIN_MS:
        return cost.milliseconds(explain[PLAIN], x, repeats=5) if kind == "time" else None
    if row not in explain or (row, kind) == (PLAIN, "time"):
        return None
    if kind == "memory":
        return cost.mebibytes(explain[row], x)
    if kind == "fixed":
        return cost.milliseconds(explain[row], x, repeats=30)
    repeats = 1 if row in SLOW else cost.MOST_PAIRS
    return cost.ratio(model, explain[row], x, repeats, options.seconds, LEAST_PAIRS)


@cache
def has_lxt() -> bool:
    return subprocess.run([LXT_PYTHON, "-c", "import lxt.efficient"], capture_output=True).returncode == 0


def from_lxt(shape: Shape, kind: str, seconds: float) -> float:
    """By a process of its own."""
    command = [LXT_PYTHON, "-m", "tests.benchmarks.lxt_cost", shape.model, "--batch", str(shape.batch)]
    command += ["--what", kind, "--seconds", str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_tables(figures: Figures, where: str) -> None:
    """All of them, with what was measured, and what was not."""
    print(where)
    card = list(dict.fromkeys(shape for shape, _, _ in figures.values if shape not in KNOWN))
    for shapes in (SHAPES, card):
        names = [named(shape) for shape in shapes]
        for kind, title in (("time", "Time, by that of the plain forward"), ("memory", "Memory, MiB")):
            print_table(figures, title, shapes, names, kind, ROWS)
    for part, letter in (("tokens", "N"), ("depth", "L")):
        shapes = PARTS[part]
        names = [f"{letter} = {s.depth if part == 'depth' else (s.size // 16) ** 2}" for s in shapes]
        for kind in ("time", "memory"):
            print_table(figures, f"Growth with {part}: {kind}", shapes, names, kind, GROWTH)
    print_table(figures, "Fixed costs, ms", [FIXED], ["Tiny, 1, 32 pixels"], "fixed", GROWTH)
    if figures.left_out:
        print("\nLeft out:\n")
        for shape, row, why in figures.left_out:
            print(f"- {named(shape)}: {row}: {why}")


def named(shape: Shape) -> str:
    """In the head of a table."""
    _, size, *_, last = shape.model.split("_")
    name = f"{last.upper()} {size.title()}" if last.startswith("dino") else size.title()
    return f"{name}, {shape.batch}" + ("" if shape.size == Shape("").size else f", {(shape.size // 16) ** 2} patches")


def print_table(
    figures: Figures, title: str, shapes: list[Shape], names: list[str], kind: str, rows: list[str]
) -> None:
    """One of them, if anything of it was measured."""
    if not any((shape, row, kind) in figures.values for shape in shapes for row in rows):
        return
    print(f"\n### {title}\n")
    aim = " aim |" if kind == "time" else ""
    print(f"| |{aim} {' | '.join(names)} |\n|---|{'--:|' * (len(names) + bool(aim))}")
    for row in rows:
        cells = [figures.values.get((shape, row, kind)) for shape in shapes]
        if any(cells):
            shown = ["" if c is None else f"{c:{DIGITS[kind]}}" for c in cells]
            shown = [cost.AIMS.get(row, ""), *shown] if aim else shown
            print(f"| {row} | {' | '.join(map(str, shown))} |")


def interrupt(*_: object) -> NoReturn:
    """End a row that takes longer than there is time."""
    raise TimeoutError("no time is left for its end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=[*PARTS, *CARD])
    parser.add_argument("--what", nargs="*", choices=["time", "memory"], default=["time", "memory"])
    parser.add_argument("--figures", type=Path, help="where figures are kept, one a line")
    parser.add_argument("--seconds", type=float, default=3, help="for each row, once one pair is measured")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--minutes", type=float, help="what would begin later is left out")
    parser.add_argument("--shrunk", action="store_true", help="small models of two blocks, two images of four patches")
    options = parser.parse_args()

    signal.signal(signal.SIGALRM, interrupt)
    parts, minutes = (CARD, 7.0) if options.device == "cuda" else (PARTS, float("inf"))
    end = time.monotonic() + 60 * (minutes if options.minutes is None else options.minutes)
    where, figures = cost.settled(options.device, options.dtype), Figures(options.figures)
    for shape in dict.fromkeys(shape for part in options.parts or parts for shape in (PARTS | CARD)[part]):
        measure(shrunk(shape) if options.shrunk else shape, figures, options, end)
    signal.alarm(0)
    print_tables(figures, where)


if __name__ == "__main__":
    main()
