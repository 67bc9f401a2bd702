"""How far a reader goes to follow one call: functions of this package called, files, and moves from file to file.

    python -m tests.benchmarks.ways        prints a table

A move is a call from a function of one file to one of another. The second call of a method is counted, so that what is
remembered of a model is not found again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.demo import demo_vit, digit_scenes

ROOMS = tuple(str(Path(package.__file__ or "").parent) for package in (cv, qm))


class Way(NamedTuple):
    """What one call took."""

    functions: int
    files: int
    moves: int


def way(call: Callable[[], object]) -> Way:
    """Follow a call."""
    functions: set[Any] = set()
    files: set[str] = set()
    moves = 0

    def follow(frame: FrameType, event: str, _: Any) -> None:
        nonlocal moves
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(ROOMS):
            return
        functions.add(frame.f_code)
        files.add(name)
        back = frame.f_back
        while back is not None and not back.f_code.co_filename.startswith(ROOMS):
            back = back.f_back
        moves += back is not None and back.f_code.co_filename != name

    sys.setprofile(follow)
    try:
        call()
    finally:
        sys.setprofile(None)
    return Way(len(functions), len(files), moves)


def calls() -> dict[str, Callable[[], object]]:
    """One call of some methods, and of a metric."""
    model, scenes = demo_vit(), digit_scenes(4)
    x, y = scenes.images, scenes.digits[:, 0]
    names = ("LayerCDAM", "PredicAtt", "VTranM", "PLUS(DecompX)", "RawAttention")
    methods = {name: cv.METHODS[name](model) for name in names}
    found: dict[str, Callable[[], object]] = {
        name: partial(method.attribute, x, target=y) for name, method in methods.items()
    }
    maps = cv.GenAtt(model).attribute(x, target=y).numpy()
    metric = qm.Fidelity()
    found["Fidelity"] = lambda: metric(model, x.numpy(), y.numpy(), maps)
    return found


def main() -> None:
    torch.set_num_threads(1)
    print("| call | functions | files | moves |\n|---|--:|--:|--:|")
    for name, call in calls().items():
        call()
        print(f"| {name} | {' | '.join(map(str, way(call)))} |")


if __name__ == "__main__":
    main()
