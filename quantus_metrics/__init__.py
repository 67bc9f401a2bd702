"""Measure explanations of transformers, at home in Quantus.

Importing this package registers its metrics with Quantus; `unregister` takes them out again.
"""

from .explain import explain_func, wrap
from .metrics import Fidelity, register, unregister
from .option_sweep import OptionSweep, sweep_option

__all__ = [
    # metrics of the CDAM paper
    "Fidelity",
    # which value of an option is best
    "sweep_option", "OptionSweep",
    # the door to Quantus
    "explain_func", "wrap",
    "register", "unregister",
]  # fmt: skip

register()
