"""Measure explanations of transformers, at home in Quantus.

Importing this package registers its metrics with Quantus; `unregister` takes them out again.
"""

from .bridge import explain_func, wrap
from .metrics import (
    AOPC,
    METRICS,
    BoxSensitivity,
    ClassDiscrimination,
    Compactness,
    Deletion,
    Fidelity,
    GridPointing,
    Insertion,
    LogOdds,
    PerturbationAccuracy,
    Segmentation,
    register,
    unregister,
)
from .mosaic import mosaics
from .option_sweep import OptionSweep, sweep_option
from .self_test import SelfTest, self_test
from .statistics import Comparison, Summary, compare, summarise
from .token_arrays import TextModel, text_curves, wrap_text

__all__ = [
    # metrics of the CDAM paper
    "Fidelity", "BoxSensitivity", "ClassDiscrimination", "Compactness",
    # of the papers of Prediction Maps and VTranM
    "PerturbationAccuracy", "AOPC", "LogOdds", "Segmentation",
    # of the SkipPLUS paper
    "Deletion", "Insertion",
    # the pointing game on mosaics
    "GridPointing", "mosaics",
    # all of them by name
    "METRICS",
    # what a mean is worth
    "summarise", "Summary", "compare", "Comparison",
    # which value of an option is best
    "sweep_option", "OptionSweep",
    # whether a metric notices what is worse
    "self_test", "SelfTest",
    # the door to Quantus
    "explain_func", "wrap",
    # texts
    "wrap_text", "TextModel", "text_curves",
    "register", "unregister",
]  # fmt: skip

register()
