"""Ctrl-C at any moment of any call: the interrupt comes out, and the model and the process are as they were."""

import random
import sys

import pytest

from tests.contracts.interrupts import Watched, after, at_event, calls, events, seconds


@pytest.mark.slow
def test_at_moments_by_the_clock(request):
    """Drawn evenly over each call and a little beyond its end; more than two thousand with ``--full``."""
    watched, dice = Watched(), random.Random(0)
    times = 140 if request.config.getoption("--full") else 3
    broken = 0
    for name, call in calls(watched.model, watched.x).items():
        duration = seconds(call)
        for _ in range(times):
            broken += watched.check(name, after(dice.uniform(1e-6, 1.1 * duration)), call)
    assert broken > 5 * times


@pytest.mark.slow
def test_at_steps_of_python(request):
    """At functions entered and C functions left, where Python looks for interrupts: anywhere, and at the last ones.

    Those are in what puts everything back.
    """
    watched, dice = Watched(), random.Random(sys.version)
    times = 100 if request.config.getoption("--full") else 3
    for name, call in calls(watched.model, watched.x).items():
        n = events(call)
        for event in dice.sample(range(1, n + 1), times) + dice.sample(range(n - 40, n + 1), times):
            assert watched.check(name, at_event(event), call) or n < event + 40


def test_the_watch_sees():
    """A hook that an interrupt leaves behind, as it was before."""
    watched = Watched()
    norm = watched.model.norm

    def careless() -> None:
        handle = norm.register_forward_hook(lambda *_: None)
        try:
            watched.model(watched.x)
        finally:
            handle.remove()

    n = events(careless)
    left = 0
    for event in range(n - 8, n + 1):
        try:
            watched.check("careless", at_event(event), careless)
        except AssertionError:
            left += 1
            norm._forward_hooks.clear()
    assert left
