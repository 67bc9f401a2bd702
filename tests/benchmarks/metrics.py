"""What a metric costs: process time as a ratio to the bare forward passes that it asks for.

    python -m tests.benchmarks.metrics [--model vit_small_patch16_224 | demo] [--images 4] [--repeats 3]

One torch thread; pairs of (bare passes of the same batches, metric), the median of their ratios. Maps are given, so
nothing is explained. Quantus's own metrics are measured in the same run, with as many steps.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import quantus
import timm
import torch
from torch import nn

import quantus_metrics as qm
from captum_vit import demo
from quantus_metrics.perturb import Fill
from tests.benchmarks.cost import process_time

Call = Callable[[], object]
AIM = 1.05


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


def candidates(model: nn.Module, x: np.ndarray, patch: int) -> dict[str, Call]:
    """Each metric on maps of patches; Quantus's on the same maps in pixels."""
    rng, n = np.random.default_rng(0), len(x)
    grid = rng.standard_normal((n, 1, x.shape[2] // patch, x.shape[3] // patch), dtype=np.float32)
    pixels = grid.repeat(patch, 2).repeat(patch, 3)
    y, other = np.zeros(n, dtype=int), rng.standard_normal(grid.shape, dtype=np.float32)
    few = {"sizes": (1, 3, 5), "n_boxes": 10}
    ours: dict[str, qm.metrics.TokenMetric] = {
        "Fidelity, 21 steps": qm.Fidelity(),
        "Fidelity, ranking pixels": qm.Fidelity(),
        "BoxSensitivity, 31 boxes": qm.BoxSensitivity(**few),
        "PerturbationAccuracy": qm.PerturbationAccuracy(remover=Fill(-1)),
        "AOPC": qm.AOPC(remover=Fill(-1)),
        "LogOdds": qm.LogOdds(remover=Fill(-1)),
    }
    found: dict[str, Call] = {
        name: lambda name=name, metric=metric: metric(model, x, y, pixels if "pixels" in name else grid)
        for name, metric in ours.items()
    }
    for inner in (qm.Fidelity(), qm.BoxSensitivity(**few)):
        delta = qm.ClassDiscrimination(inner)
        found[f"ClassDiscrimination of {inner.name}"] = lambda delta=delta: delta(model, x, y, grid, custom_batch=other)
    quiet = {"disable_warnings": True, "normalise": False}
    steps = x.shape[2] * x.shape[3] // 7
    theirs = {
        "Quantus PixelFlipping, 21 steps": quantus.PixelFlipping(features_in_step=steps, **quiet),
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
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = demo.demo_vit() if options.model == "demo" else timm.create_model(options.model).eval()
    size, patch = model.patch_embed.img_size, model.patch_embed.patch_size[0]
    x = np.random.default_rng(0).standard_normal((options.images, 3, *size), dtype=np.float32)
    print(f"{options.model}, {options.images} images, one thread, torch {torch.__version__}; aim {AIM}")
    print("| metric | image passes | time by their bare time |\n|---|--:|--:|")
    for name, call in candidates(model, x, patch).items():
        images, ratio = measure(model, x, call, options.repeats)
        print(f"| {name} | {images} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
