"""Ctrl-C at any moment of any call: the interrupt comes out, and the model and the process are as they were."""

import random

from tests.contracts.interrupts import Watched, calls, interrupted, seconds


def test_nothing_stays_behind(request):
    """Moments drawn evenly over each call, and a little beyond its end; two thousand with ``--full``."""
    watched, dice = Watched(), random.Random(0)
    times = 120 if request.config.getoption("--full") else 12
    hit = 0
    for name, call in calls(watched.model, watched.x).items():
        duration = seconds(call)
        for _ in range(times):
            came, error = interrupted(call, dice.uniform(1e-6, 1.1 * duration))
            assert not watched.changed(), name  # the traceback, with all that it holds, is still there
            del error
            assert not watched.changed(), f"{name}, once the traceback is forgotten"
            hit += came
    assert hit > times * 5
