"""Tests of explanations on scenes whose parts can be left out: what each part counts for is known by intervention."""

from .effects import Effects, PartWorld, part_effects
from .protocol import PartTests, part_tests, part_tests_of

__all__ = ["Effects", "PartTests", "PartWorld", "part_effects", "part_tests", "part_tests_of"]
