"""Measure explanations of transformers, as metrics of Quantus.

Importing this package registers its metrics with Quantus; `unregister` takes them out again.
"""

from .bridge import explain_func, wrap
from .metrics.passes import Passes
from .metrics.registration import *  # every metric; the list is there
from .metrics.registration import __all__ as _metrics
from .mosaic import mosaics
from .option_sweep import OptionSweep, sweep_option
from .parts import Effects, PartTests, part_effects, part_tests
from .self_test import SelfTest, self_test
from .statistics import Comparison, Summary, compare, summarise
from .token_arrays import TextModel, text_curves, wrap_text

__all__ = [
    *_metrics,
    # what metrics on the same samples share
    "Passes",
    # several pictures in one, for the pointing game
    "mosaics",
    # what a mean is worth
    "summarise", "Summary", "compare", "Comparison",
    # scenes whose parts can be left out
    "part_effects", "Effects", "part_tests", "PartTests",
    # which value of an option is best
    "sweep_option", "OptionSweep",
    # whether a metric notices what is worse
    "self_test", "SelfTest",
    # explanations and models as Quantus calls them
    "explain_func", "wrap",
    # texts
    "wrap_text", "TextModel", "text_curves",
]  # fmt: skip

register()
