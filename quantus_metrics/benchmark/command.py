"""The command: run a spec, then write its table and its report; or only say what would run."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from captum_vit.errors import OptionError
from captum_vit.viz.files import write_whole
from quantus_metrics.benchmark.estimate import estimate
from quantus_metrics.benchmark.forms import FORMS, markdown
from quantus_metrics.benchmark.report import report
from quantus_metrics.benchmark.rows import read_rows
from quantus_metrics.benchmark.runner import bench_of, run
from quantus_metrics.benchmark.spec import read_spec
from quantus_metrics.benchmark.table import table_of


def benchmark(commands: Any) -> None:
    """Add ``captum-vit benchmark``."""
    about = "run models x methods x metrics x data from a TOML file; ends with a table and a report"
    command = commands.add_parser("benchmark", help=about, description=about)
    add_arguments(command)
    command.set_defaults(run=main)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("spec", type=Path, help="a TOML file; examples/tables holds those of the papers")
    add("--out", type=Path, help="folder of the results; default: results/NAME of the spec")
    add("--limit", type=int, metavar="N", help="the first N samples only")
    add("--device", help="cpu, cuda, cuda:1, mps; default: what Accelerate finds, one for each process")
    add("--dry-run", action="store_true", help="say what would run, how many forward passes and how long; run nothing")
    add("--retry", action="store_true", help="try samples again that failed before")


def main(args: argparse.Namespace) -> int:
    """Run what is missing in the folder, then write ``table.md``, ``.tex`` and ``.csv`` and ``report.html``."""
    spec = read_spec(args.spec)
    bench = bench_of(spec, args.limit)
    state = PartialState(cpu=args.device == "cpu")
    if args.device is not None:
        state.device = _device(args.device)
    if args.dry_run:
        if state.is_main_process:
            print(estimate(bench, state))
        return 0
    folder = args.out or Path("results") / args.spec.stem
    run(bench, folder, state, args.retry)
    if state.is_main_process:
        rows = read_rows(folder, spec.hash)
        table = table_of(bench, rows)
        for suffix, form in FORMS.items():
            write_whole(folder / f"table{suffix}", partial(_write, form(table)))
        write_whole(folder / "report.html", partial(_write, report(bench, table, rows, state.device)))
        print(markdown(table))
        print(f"Results, table and report: {folder}")
    state.wait_for_everyone()
    return 0


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).splitlines()[0]
        raise OptionError("--device: a device that this machine has.", f"{name!r} ({reason})", "cpu") from error
