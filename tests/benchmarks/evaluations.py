"""What a benchmark costs whose metrics share passes: by its metrics one by one, and by Quantus's own runner.

    python -m tests.benchmarks.evaluations [--spec examples/tables/demo/all.toml] [--samples 12] [--repeats 3]
        [--methods CDAM GenAtt DecompX]

One torch thread and process time. The first row is the benchmark of the spec, at once and in a run of its own for each
metric; in the same pairs scores are compared, and the largest difference is printed. The other rows are of three
metrics that are made of one kind of curve here and in Quantus: `quantus.evaluate` with PixelFlipping (which takes each
pixel three times, once for each channel), RegionPerturbation and Selectivity (patch by patch), against this package's
on the same maps, in as many steps, with a colour of their own: `Fidelity` of pixels, `AOPC` and `Fidelity` of patches,
one by one and with `Passes`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import quantus
from accelerate import PartialState
from torch import nn

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.demo import demo_vit, digit_scenes
from quantus_metrics.benchmark.rows import read_rows
from quantus_metrics.benchmark.runner import RESOURCES, bench_of, run
from quantus_metrics.benchmark.toml_spec import Spec, read_spec
from quantus_metrics.perturb import Fill
from tests.benchmarks.cost import process_time, settled

Scores = dict[tuple[str, ...], float | None]
Call = Callable[[], object]


def scores(spec: Spec, samples: int) -> Scores:
    """Run a spec in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run(bench_of(spec, samples), Path(folder), PartialState(cpu=True))
        rows = read_rows(Path(folder), spec.hash)
    if failed := [row for row in rows.values() if row.error]:
        raise RuntimeError(f"{len(failed)} of {len(rows)} rows failed, such as {failed[0].key}: {failed[0].error}")
    return {key: row.score for key, row in rows.items() if row.metric != RESOURCES}


def together_and_apart(spec: Spec, samples: int, repeats: int) -> tuple[float, float, float]:
    """Seconds of the run of all metrics, and of the runs of each; and the largest difference between their scores."""
    times, apart = [], 0.0
    for _ in range(repeats):
        at_once: Scores = {}
        one_by_one: Scores = {}
        spent = process_time(lambda found=at_once: found.update(scores(spec, samples)))
        parts = [replace(spec, metric=[metric]) for metric in spec.metric]
        alone = process_time(lambda found=one_by_one, parts=parts: [found.update(scores(p, samples)) for p in parts])
        times.append((spent, alone))
        assert at_once.keys() == one_by_one.keys()
        pairs = [(at_once[key], one_by_one[key]) for key in at_once]
        apart = max(apart, *(abs(a - b) for a, b in pairs if a is not None and b is not None and a == a))
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times), apart


def curves(model: nn.Module, methods: list[str], samples: int) -> dict[str, Call]:
    """The three metrics, by Quantus's runner and by this package's."""
    scenes, patch, grid = digit_scenes(samples, 1), model.patch_embed.patch_size[0], model.patch_embed.grid_size
    x, y, cells = scenes.images.numpy(), scenes.digits[:, 0].numpy(), grid[0] * grid[1]
    explain = {name: qm.explain_func(cv.METHODS[name]) for name in methods}
    quiet = {"normalise": False, "disable_warnings": True, "perturb_baseline": "black"}
    theirs = {
        "PixelFlipping": quantus.PixelFlipping(features_in_step=4 * patch**2, **quiet),
        "RegionPerturbation": quantus.RegionPerturbation(patch_size=patch, regions_evaluation=cells, **quiet),
        "Selectivity": quantus.Selectivity(patch_size=patch, **quiet),
    }
    pixels, patches = (tuple(k / n for k in range(n + 1)) for n in (x[0].size // (4 * patch**2), cells))
    ours = [
        qm.Fidelity(score="mif", fractions=pixels, remover=Fill()),
        qm.AOPC(patch_size=patch, fractions=patches, remover=Fill()),
        qm.Fidelity(score="mif", patch_size=patch, fractions=patches, remover=Fill()),
    ]

    def evaluate(sharing: bool) -> None:
        passes = {"passes": qm.Passes(model)} if sharing else {}
        for method in explain.values():
            maps = method(model, x, y)
            for metric in ours:
                metric(model, x, y, maps, **passes)

    return {
        "quantus.evaluate": partial(quantus.evaluate, theirs, explain, qm.wrap(model), x, y, explain_func_kwargs={}),
        "one by one": partial(evaluate, False),
        "with shared passes": partial(evaluate, True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", type=Path, default=Path("examples/tables/demo/all.toml"))
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=["CDAM", "GenAtt", "DecompX"], help="of the spec")
    options = parser.parse_args()

    where = settled("cpu")
    warnings.simplefilter("ignore")
    spec = read_spec(options.spec)
    spec = replace(spec, method=[method for method in spec.method if method.name in options.methods])
    print(f"{len(spec.method)} methods, {options.samples} samples; {where}")
    print("| what | seconds | by its run |\n|---|--:|--:|")
    at_once, one_by_one, apart = together_and_apart(spec, options.samples, options.repeats)
    print(f"| {options.spec.name}, {len(spec.metric)} metrics one by one | {one_by_one:.1f} | |")
    print(f"| the same at once | {at_once:.1f} | {at_once / one_by_one:.2f} |", flush=True)
    calls = curves(demo_vit(), [method.method for method in spec.method], options.samples)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.repeats):
        for name, call in calls.items():
            found[name].append(process_time(call))
    first = statistics.median(found["quantus.evaluate"])
    for name, times in found.items():
        print(f"| three curves, {name} | {statistics.median(times):.1f} | {statistics.median(times) / first:.2f} |")
    print(f"\nLargest difference between scores at once and one by one: {apart:.2g}")


if __name__ == "__main__":
    main()
