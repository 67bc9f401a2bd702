"""What every test may count on: one thread, no network, no window, seed 0, the same examples."""

import os
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from hypothesis import settings

import captum_vit as cv
from captum_vit.attr.input_gradient import smooth_grad

torch.set_num_threads(1)

# The same examples in every run, so that a commit has one result; HYPOTHESIS_PROFILE=default tries others.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

LONG = ("test_examples.py", "test_app.py", "test_runner.py")  # begun last, a test of a minute would be waited for
LEFT_OUT = pytest.StashKey[int]()
QUICK = 5  # cases of one test that `-m "not slow"` runs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also run the tests marked `full`")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `full` wait for --full, those marked `gpu` for an accelerator; long ones come first."""
    items.sort(key=lambda item: item.path.name not in LONG)
    mark_further_cases(items)
    if not config.getoption("--full"):
        waiting = [item for item in items if item.get_closest_marker("full")]
        config.stash[LEFT_OUT] = len(waiting)
        if waiting:
            config.hook.pytest_deselected(items=waiting)
            items[:] = [item for item in items if not item.get_closest_marker("full")]

    if not torch.cuda.is_available():
        no_gpu = pytest.mark.skip(reason="no accelerator here")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(no_gpu)


def mark_further_cases(items: list[pytest.Item]) -> None:
    """Of the cases of a test that are not slow, a few spread over all stay so; the others become slow."""
    by_test: dict[str, list[pytest.Item]] = {}
    for item in items:
        if not item.get_closest_marker("slow"):
            by_test.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in by_test.values():
        step = -(-len(cases) // QUICK)
        for place, item in enumerate(cases):
            if place % step:
                item.add_marker(pytest.mark.slow)


def pytest_report_collectionfinish(config: pytest.Config) -> str | None:
    left_out = config.stash.get(LEFT_OUT, 0)
    return f"{left_out} tests marked `full` left out; --full runs them" if left_out else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker that is done takes over what waits elsewhere."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers for a test, whichever tests ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def a_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Integrated gradients take eight steps, not fifty, SmoothGrad four samples, DAVE three: the same code."""
    few = {
        "IntegratedGradients": lambda model: cv.InputGradient(model, IntegratedGradients, n_steps=8),
        "SmoothGrad": lambda model: cv.InputGradient(model, smooth_grad, nt_samples=4, stdevs=0.7),
        "DAVE": lambda model: cv.DAVE(model, n_samples=3),
    }
    for name, make in few.items():
        monkeypatch.setitem(cv.METHODS, name, make)
