"""The command: run a spec, then write its table and its report; or only print what would run."""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState

from captum_vit.errors import InputError
from captum_vit.inputs.loading import device_named
from captum_vit.viz.files import write_whole
from quantus_metrics.benchmark.estimate import estimate
from quantus_metrics.benchmark.formats import FORMS, markdown
from quantus_metrics.benchmark.html_report import report
from quantus_metrics.benchmark.origin import check_one_origin
from quantus_metrics.benchmark.rows import read_rows
from quantus_metrics.benchmark.runner import Bench, bench_of, run
from quantus_metrics.benchmark.table import table_of
from quantus_metrics.benchmark.toml_spec import read_spec

PATIENCE = timedelta(days=365)
"""How long processes wait for each other's share of the work."""


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
    add("--limit", type=int, metavar="N", help="only N samples, drawn by the seed of the spec")
    add("--device", help="cpu, cuda, cuda:1, mps; default: what Accelerate finds, one for each process")
    add("--dry-run", action="store_true", help="say what would run, how many forward passes and how long; run nothing")
    add("--retry", action="store_true", help="try samples again that failed before")


def main(args: argparse.Namespace) -> int:
    """Run what is missing in the folder, then write ``table.md``, ``.tex`` and ``.csv`` and ``report.html``."""
    spec = read_spec(args.spec)
    folder = args.out or Path("results") / args.spec.stem
    _refuse_foreign(folder)
    device = None if args.device is None else device_named(args.device)
    bench = bench_of(spec, args.limit)
    state = PartialState(cpu=args.device == "cpu", timeout=PATIENCE)
    if device is not None:
        state.device = device
    if args.dry_run:
        if state.is_main_process:
            _show(estimate(bench, state))
        return 0
    bench = run(bench, folder, state, args.retry)
    if state.is_main_process:  # the others are done: nobody waits for the report
        _conclude(bench, folder, state)
    return 0


def _conclude(bench: Bench, folder: Path, state: PartialState) -> None:
    """Write the table in all its forms, and the report."""
    rows = read_rows(folder, bench.spec.hash)
    check_one_origin(rows.values())
    table = table_of(bench, rows)
    texts = {f"table{suffix}": form(table) for suffix, form in FORMS.items()}
    for name, text in (texts | {"report.html": report(bench, table, rows, state.device)}).items():
        write_whole(folder / name, partial(_write, text))
    _show(markdown(table))
    _show(f"Results, table and report: {folder}")


def _write(text: str, path: Path) -> None:
    """As UTF-8; a file name that is none is written with its bytes as escapes."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _show(text: str) -> None:
    """Print, whatever signs the terminal knows."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _refuse_foreign(folder: Path) -> None:
    """Results go into a folder of their own: what else is there is neither replaced nor added to."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not place.is_dir() or (place == folder and any(folder.iterdir()) and not (folder / "spec.toml").is_file()):
        raise InputError(
            "A new folder, an empty one, or one with results of this spec.",
            f"{str(place)!r}, which {'holds other files' if place.is_dir() else 'is a file'}",
            "--out with another name.",
        )
