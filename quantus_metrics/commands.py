"""Commands that this package adds to ``captum-vit``, through the entry-point group ``captum_vit.commands``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from quantus_metrics.demo import run


def demo(commands: Any) -> None:
    """Add ``captum-vit demo``."""
    about = "explain two-digit scenes for both digits with every method, and mark the methods"
    command = commands.add_parser("demo", help=about, description=about)
    command.add_argument("--out", type=Path, default=Path("explanations.png"), help="default: %(default)s")
    command.add_argument("--scenes", type=int, default=100, help="scenes of two digits; default: %(default)s")
    command.add_argument("--seed", type=int, default=0, help="of the scenes; default: %(default)s")
    command.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    command.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> int:
    run(args.out, args.scenes, seed=args.seed, overwrite=args.overwrite)
    return 0
