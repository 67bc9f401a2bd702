"""A small benchmark, quick enough to be run many times."""

import copy
from typing import Any

import pytest
from accelerate import PartialState

TABLES: dict[str, Any] = {
    "title": "Small",
    "batch_size": 4,
    "data": {"use": "digits", "options": {"scenes": 5}},
    "model": [{"name": "digits", "load": "demo:digits"}],
    "method": [{"name": "GenAtt"}, {"name": "Random", "use": "RandomAttribution"}],
    "metric": [
        {"name": "Fidelity", "options": {"fractions": [0.0, 0.5, 1.0]}},
        {"name": "pointing", "use": "quantus.PointingGame"},
    ],
}


@pytest.fixture
def tables() -> dict[str, Any]:
    """A spec as parsed TOML, to be changed at will."""
    return copy.deepcopy(TABLES)


@pytest.fixture(scope="session")
def state() -> PartialState:
    """One process, on the CPU."""
    return PartialState(cpu=True)
