"""Every error is ours, every one says all three, and there are as many bad calls as we say."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from captum_vit import errors
from tests.malformed import methods
from tests.malformed.files import COMMANDS, FILE_CALLS
from tests.malformed.methods import METHOD_CALLS
from tests.malformed.metrics import METRIC_CALLS
from tests.malformed.targets import TARGET_CALLS

ROOT = Path(__file__).parents[2]
FAMILY = {
    name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, errors.CaptumVitError)
}
SOURCES = [path for package in ("captum_vit", "quantus_metrics") for path in sorted((ROOT / package).rglob("*.py"))]


def test_there_are_as_many_bad_calls_as_we_say():
    """Three hundred were asked for; each has a name of its own, which says what is called with what."""
    tables = {"methods": METHOD_CALLS, "targets": TARGET_CALLS, "metrics": METRIC_CALLS, "files": FILE_CALLS}
    names = [bad.what for bads in tables.values() for bad in bads] + [" ".join(line) for line in COMMANDS]
    assert [name for name, times in Counter(names).items() if times > 1] == []
    assert all(len(bads) >= 100 for bads in tables.values()) and len(COMMANDS) >= 70
    assert len(names) >= 1500


def calls(kinds: set[str]) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a class with one of these names, and where it stands."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in kinds:
                yield f"{path.relative_to(ROOT)}, line {node.lineno}", node


def test_an_error_says_what_was_wanted_what_was_got_and_what_to_try():
    """Written where it is raised, so none of the three is empty."""
    found = {place: [ast.unparse(part) for part in call.args] for place, call in calls(FAMILY)}
    assert len(found) > 200
    assert not [place for place, said in found.items() if len(said) != 3 or {"''", '""'} & set(said)]


FOREIGN = {"ValueError", "TypeError", "RuntimeError", "KeyError", "IndexError", "AssertionError", "Exception"}


def test_errors_are_of_the_family():
    """Others are raised only where they are caught and told at once: in a reader of files, and by pydantic."""
    places = [place for place, _ in calls(FOREIGN)]
    assert {place.partition(",")[0].rpartition("/")[2] for place in places} == {
        "loading.py",
        "toml_spec.py",
        "head_spec.py",
    }, places


@pytest.mark.parametrize("name", methods.MADE)
def test_no_option_escapes(name: str):
    """Each option of a method, and of its ``attribute``, has its bad values in the table."""
    kind = methods.MADE[name]
    assert set(methods.taken(kind)) | set(methods.taken(kind.attribute)) <= set(methods.VALUES)
