"""Measure explanations of transformers, at home in Quantus.

Importing this package registers its metrics with Quantus; `unregister` takes them out again.
"""

from .explain import explain_func, wrap
from .metrics import Fidelity, register, unregister

__all__ = [
    # metrics of the CDAM paper
    "Fidelity",
    # the door to Quantus
    "explain_func", "wrap",
    "register", "unregister",
]  # fmt: skip

register()
