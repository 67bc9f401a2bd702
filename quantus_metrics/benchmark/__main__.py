"""``python -m quantus_metrics.benchmark SPEC.toml``: what ``accelerate launch -m`` and ``torchrun -m`` start."""

from __future__ import annotations

import argparse
import sys

from captum_vit.errors import CaptumVitError
from quantus_metrics.benchmark.command import add_arguments, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser("quantus_metrics.benchmark", description="Run a benchmark spec.")
    add_arguments(parser)
    try:
        sys.exit(main(parser.parse_args()))
    except CaptumVitError as error:
        sys.exit(str(error))
