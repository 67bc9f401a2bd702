"""What a metric costs: process time as a ratio to the bare forward passes that it asks for, and memory.

    python -m tests.benchmarks.metrics [--model vit_small_patch16_224 | demo] [--images 4] [--repeats 3] [--only AOPC]

One torch thread; pairs of (bare passes of the same batches, metric), the median of their ratios. Maps are given, so
nothing is explained. Quantus's own metrics are measured in the same run, with as many steps. Memory is the most that
tensors made in a call hold at any time, in a run of its own: weights, and arrays of numpy, are not counted.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import quantus
import timm
import torch
from torch import nn

import quantus_metrics as qm
from captum_vit import demo
from quantus_metrics.benchmark.memory import peak_bytes
from quantus_metrics.perturb import Fill
from tests.benchmarks.cost import process_time

Call = Callable[[], object]
AIM, AIM_DROPPED = 1.05, 0.6


def peak_mib(call: Call) -> float:
    """The most memory that a call's tensors hold at once, in MiB."""
    return peak_bytes(call, torch.device("cpu")) / 2**20


def batches(model: nn.Module, call: Call) -> list[int]:
    """How many images each forward pass of a call takes."""
    seen: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    call()
    handle.remove()
    return seen


def measure(model: nn.Module, x: np.ndarray, call: Call, repeats: int) -> tuple[int, float]:
    """Images asked, and the median over pairs of the call's time by that of the same passes alone."""
    seen, images = batches(model, call), torch.from_numpy(x)

    def bare() -> None:
        with torch.inference_mode():
            for n in seen:
                model(images.repeat(-(-n // len(images)), 1, 1, 1)[:n])

    pairs = [(process_time(bare), process_time(call)) for _ in range(repeats)]
    return sum(seen), statistics.median(ours / base for base, ours in pairs)


def candidates(model: nn.Module, x: np.ndarray, patch: int, internal: int | None = None) -> dict[str, Call]:
    """Each metric on maps of patches; Quantus's on the same maps in pixels. `internal` images per pass, if given."""
    rng, n = np.random.default_rng(0), len(x)
    grid = rng.standard_normal((n, 1, x.shape[2] // patch, x.shape[3] // patch), dtype=np.float32)
    pixels = grid.repeat(patch, 2).repeat(patch, 3)
    y, other = np.zeros(n, dtype=int), rng.standard_normal(grid.shape, dtype=np.float32)
    some: dict[str, Any] = {"internal_batch_size": internal}
    few: dict[str, Any] = {"sizes": (1, 3, 5), "n_boxes": 10, **some}
    ours: dict[str, qm.metrics.TokenMetric] = {
        "Fidelity, 21 steps": qm.Fidelity(**some),
        "Fidelity, ranking pixels": qm.Fidelity(**some),
        "BoxSensitivity, 31 boxes": qm.BoxSensitivity(**few),
        "PerturbationAccuracy": qm.PerturbationAccuracy(remover=Fill(-1), **some),
        "AOPC": qm.AOPC(remover=Fill(-1), **some),
        "LogOdds": qm.LogOdds(remover=Fill(-1), **some),
        "Deletion, tokens dropped": qm.Deletion(**some),
        "Insertion, tokens dropped": qm.Insertion(**some),
    }
    found: dict[str, Call] = {
        name: lambda name=name, metric=metric: metric(model, x, y, pixels if "pixels" in name else grid)
        for name, metric in ours.items()
    }
    for inner in (qm.Fidelity(**some), qm.BoxSensitivity(**few)):
        delta = qm.ClassDiscrimination(inner)
        found[f"ClassDiscrimination of {inner.name}"] = lambda delta=delta: delta(model, x, y, grid, custom_batch=other)
    if internal is not None:
        return found  # Quantus's own have no such option
    quiet = {"disable_warnings": True, "normalise": False}
    pixels_of_one = x.shape[2] * x.shape[3]  # the metric counts each three times, and wants a step that divides them
    step = max(size for size in range(1, pixels_of_one // 7 + 1) if pixels_of_one % size == 0)
    theirs = {
        f"Quantus PixelFlipping, {3 * pixels_of_one // step} steps": quantus.PixelFlipping(
            features_in_step=step, **quiet
        ),
        "Quantus RegionPerturbation, 20 regions": quantus.RegionPerturbation(
            patch_size=patch, regions_evaluation=20, **quiet
        ),
    }
    for name, metric in theirs.items():
        found[name] = lambda metric=metric: metric(model, x, y, pixels, softmax=False, batch_size=n)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224", help='a timm model, or "demo"')
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="beginnings of names; all metrics by default")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = demo.demo_vit() if options.model == "demo" else timm.create_model(options.model).eval()
    size, patch = model.patch_embed.img_size, model.patch_embed.patch_size[0]
    x = np.random.default_rng(0).standard_normal((options.images, 3, *size), dtype=np.float32)
    print(f"{options.model}, {options.images} images, one thread, torch {torch.__version__}; ", end="")
    print(f"aims {AIM}, and {AIM_DROPPED} where tokens are dropped")
    print("| metric | image passes | time by their bare time | peak MiB | peak MiB, internal_batch_size=1 |")
    print("|---|--:|--:|--:|--:|")
    one_by_one = candidates(model, x, patch, internal=1)
    for name, call in candidates(model, x, patch).items():
        if options.only and not name.startswith(tuple(options.only)):
            continue
        images, ratio = measure(model, x, call, options.repeats)
        small = f"{peak_mib(one_by_one[name]):.1f}" if name in one_by_one else "–"
        print(f"| {name} | {images} | {ratio:.2f} | {peak_mib(call):.1f} | {small} |", flush=True)


if __name__ == "__main__":
    main()
