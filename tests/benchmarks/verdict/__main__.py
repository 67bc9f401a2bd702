"""The table that decides: all methods under all tests on four trained models, with intervals.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.verdict FOLDER [--samples 24] [--processes 2] [--only DecompX GenAtt]

Results are kept in FOLDER, one file for each method on each model; a run that was stopped goes on. At the end it prints
the tables.

A method that refuses a model has no row there, and a test that cannot be made of a map no number.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

import captum_vit as cv
from quantus_metrics.bridge import sign_of
from tests.benchmarks.verdict.scores import Scores, kept
from tests.benchmarks.verdict.subjects import SUBJECTS, subject
from tests.benchmarks.verdict.tables import tables


def measured(folder: Path, methods: list[str], n: int, processes: int) -> Iterator[tuple[str, str, Scores | str]]:
    """All methods on all models; each process has models of its own."""
    pairs = [(name, method) for name in SUBJECTS for method in methods]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(kept, folder, *pair, n) for pair in pairs]
        for job in tqdm(jobs, unit="method"):
            yield job.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=24, help="of each model")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=cv.METHODS, default=list(cv.METHODS), metavar="METHOD")
    given = parser.parse_args()
    start = time.monotonic()
    found: dict[str, dict[str, Scores | str]] = {name: {} for name in SUBJECTS}
    for name, method, of in measured(given.folder, given.only, given.samples, given.processes):
        found[name][method] = of
    minutes = (time.monotonic() - start) / 60
    higher = {test: sign_of(m) for name in SUBJECTS for test, m in subject(name, 2).tests.items()}
    parts = tables(found, higher)
    print(*(f"## {title}\n\n{table}" for title, table in parts.items()), sep="\n\n")
    print(f"\n{minutes:.1f} minutes, {given.samples} samples of each model")


if __name__ == "__main__":
    main()
