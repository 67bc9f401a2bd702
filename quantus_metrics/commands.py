"""Commands that this package adds to ``captum-vit``, through the entry-point group ``captum_vit.commands``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from quantus_metrics.demo import SECTIONS, run


def demo(commands: Any) -> None:
    """Add ``captum-vit demo``."""
    about = "explain data with known answers by every method, and mark the methods"
    command = commands.add_parser("demo", help=about, description=about)
    command.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="default: all, %(default)s"
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("explanations.png"),
        help="picture of the digits; other sections' files lie beside it, under their own names; default: %(default)s",
    )
    for name, section in SECTIONS.items():
        command.add_argument(
            f"--{section.unit}",
            type=int,
            default=section.n,
            metavar="N",
            dest=name,
            help=f"{section.about}; default: %(default)s",
        )
    command.add_argument("--seed", type=int, default=0, help="of the data; default: %(default)s")
    command.add_argument("--overwrite", action="store_true", help="replace existing files")
    command.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> int:
    """One thread: models this small gain little from more, which on busy cores spend their time waiting."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(args.out, args.sections, {name: getattr(args, name) for name in SECTIONS}, args.seed, args.overwrite)
    finally:
        torch.set_num_threads(threads)
    return 0
