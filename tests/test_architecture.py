"""Imports point downward: the picture of the house, read from the source so that it stays true.

Where a late import or an arrow upward tempts you, a room wants moving; where the house has truly changed,
change the tables below and say why in the commit.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("captum_vit", "quantus_metrics")

# From the ground up. A room imports itself and the floors below; rooms on one floor do not know each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("captum_vit.errors",),
    ("captum_vit.extras", "captum_vit.options"),
    ("captum_vit.sites", "captum_vit.tokens"),
    ("captum_vit.models",),
    ("captum_vit.description", "captum_vit.inputs"),
    ("captum_vit.trace",),
    ("captum_vit.targets",),
    ("captum_vit.attr", "captum_vit.viz"),
    ("captum_vit.studies",),
    ("captum_vit.explain", "captum_vit.doctor"),
    ("captum_vit",),  # the table of contents
    ("captum_vit.cli", "captum_vit.demo"),
    ("captum_vit.__main__",),
    ("quantus_metrics.cells",),
    ("quantus_metrics.bridge",),
    ("quantus_metrics.perturb", "quantus_metrics.statistics", "quantus_metrics.mosaic"),
    ("quantus_metrics.token_arrays",),
    ("quantus_metrics.metrics", "quantus_metrics.option_sweep", "quantus_metrics.self_test"),
    ("quantus_metrics",),  # the table of contents
    ("quantus_metrics.benchmark.data",),
    ("quantus_metrics.benchmark", "quantus_metrics.demo"),
    ("quantus_metrics.commands",),
    ("examples",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Who may know a stranger. Everyone may know torch, captum and numpy; examples may know anyone.
STRANGERS: dict[str, tuple[str, ...]] = {
    "transformers": ("captum_vit.inputs", "captum_vit.demo"),
    "open_clip": ("captum_vit.inputs",),
    "timm": ("captum_vit.inputs", "captum_vit.demo", "quantus_metrics.benchmark"),
    "torchvision": ("captum_vit.inputs", "captum_vit.demo", "quantus_metrics.benchmark"),
    "PIL": ("captum_vit.inputs", "captum_vit.viz", "captum_vit.demo", "quantus_metrics"),
    "matplotlib": ("captum_vit.viz", "captum_vit.demo", "quantus_metrics"),
    "quantus": ("quantus_metrics",),
}

NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}
LONGEST = 400


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def room_of(name: str) -> str | None:
    """The innermost room of the table that holds a module, or a name imported from one."""
    return max((room for room in FLOOR if within(name, room)), key=len, default=None)


def imports(module: str, tree: ast.Module, is_package: bool) -> Iterator[tuple[str, int, bool]]:
    """Every imported name, dotted and absolute; its line; whether it is imported inside a function."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    late = {id(node) for function in functions for node in ast.walk(function)}
    here = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) in late
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                yield f"{origin}.{alias.name}", node.lineno, id(node) in late


def offences(module: str, source: str, is_package: bool = False) -> Iterator[str]:
    """What one file does against the house, each as a sentence."""
    tree = ast.parse(source)
    room = room_of(module)
    if room is None or (room in PACKAGES and module != room):
        yield f"{module} is on no floor: give its room a line in FLOORS"
        return

    for name, line, late in imports(module, tree, is_package):
        where, other = f"{module}:{line}", room_of(name)
        if other is not None:
            if other != room and FLOOR[other] >= FLOOR[room]:
                yield f"{where} imports {name}: {room} may not look up to {other}"
            if late:
                yield f"{where} imports {name} inside a function: imports stand at the top"
            if room == other == "captum_vit.attr" and module != room and not within(name, f"{room}.base"):
                yield f"{where} imports {name}: files in attr/ import from attr/ only base"
        stranger = name.split(".")[0]
        if room != "examples" and not any(within(module, host) for host in STRANGERS.get(stranger, (module,))):
            yield f"{where} imports {stranger}: only {', '.join(STRANGERS[stranger])} may"

    if not any(part.startswith("_") for part in module.split(".")) and not ast.get_docstring(tree):
        yield f"{module} has no docstring"
    for part in NAMELESS.intersection(module.split(".")):
        yield f"{module}: name a room for its content, not '{part}'"
    if (length := source.count("\n")) > LONGEST:
        yield f"{module} has {length} lines: past {LONGEST}, look for the second noun inside"


def house() -> Iterator[tuple[str, str, bool]]:
    """Each file of the packages and examples: dotted name, source, whether it is an `__init__`."""
    for path in sorted(path for top in (*PACKAGES, "examples") for path in (ROOT / top).rglob("*.py")):
        is_package = path.stem == "__init__"
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if is_package else parts), path.read_text(encoding="utf-8"), is_package


@pytest.mark.slow
def test_the_house_stands():
    found = [offence for file in house() for offence in offences(*file)]
    assert not found, "\n".join(found)


def test_tests_are_short_and_named_for_what_they_hold():
    paths = sorted((ROOT / "tests").rglob("*.py"))
    assert not [str(path) for path in paths if NAMELESS.intersection(path.relative_to(ROOT).with_suffix("").parts)]
    assert not [str(path) for path in paths if path.read_text(encoding="utf-8").count("\n") > LONGEST]


BAD: dict[str, tuple[str, str, str]] = {
    "upward": ("captum_vit.trace.tap", "from captum_vit.attr.base import TokenAttribution", "look up"),
    "upward, relative": ("captum_vit.trace.tap", "from ..attr import base", "look up"),
    "upward, for types only": (
        "captum_vit.tokens",
        "if TYPE_CHECKING:\n    import captum_vit.models",
        "look up",
    ),
    "sideways": ("captum_vit.viz.overlay", "from captum_vit.attr.base import TokenAttribution", "look up"),
    "from the contents": ("captum_vit.attr.cdam", "from captum_vit import PLUS", "look up"),
    "the other package": ("captum_vit.cli", "import quantus_metrics.commands", "look up"),
    "late": ("captum_vit.explain", "def f():\n    from captum_vit.attr import base", "inside a function"),
    "a sibling": ("captum_vit.attr.cdam", "from captum_vit.attr.cat import CAT", "only base"),
    "a sibling, relative": ("captum_vit.attr.cdam", "from .cat import CAT", "only base"),
    "a stranger": ("captum_vit.attr.cdam", "def f():\n    import timm", "only captum_vit.inputs"),
    "a name's stranger": (
        "captum_vit.explain",
        "from transformers import AutoModel",
        "only captum_vit.inputs",
    ),
    "a plot": ("captum_vit.attr.cdam", "import matplotlib.pyplot as plt", "only captum_vit.viz"),
    "no floor": ("captum_vit.attic", "", "no floor"),
    "no docstring": ("captum_vit.tokens", "x = 1", "no docstring"),
    "nameless": ("captum_vit.models.utils", "", "not 'utils'"),
    "long": ("captum_vit.tokens", "\n" * 401, "401 lines"),
}


@pytest.mark.parametrize(("module", "source", "complaint"), BAD.values(), ids=BAD)
def test_the_reader_sees(module: str, source: str, complaint: str):
    assert any(complaint in offence for offence in offences(module, source))


GOOD: dict[str, tuple[str, str, bool]] = {
    "downward": ("captum_vit.attr.cdam", "from captum_vit.trace.record.record import record", False),
    "the base": ("captum_vit.attr.cdam", "from .base import TokenAttribution", False),
    "contents of attr": ("captum_vit.attr", "from .cdam import LayerCDAM\nfrom .cat import CAT", True),
    "the contents": ("captum_vit", "from .attr import LayerCDAM\nfrom .errors import CaptumViTError", True),
    "a stranger at home": ("captum_vit.inputs.loading", "import timm\ndef f():\n    import timm.layers", False),
    "across the street": ("quantus_metrics.metrics.aopc", "import captum_vit as cv\nimport quantus", False),
}


@pytest.mark.parametrize(("module", "source", "is_package"), GOOD.values(), ids=GOOD)
def test_the_reader_lets_pass(module: str, source: str, is_package: bool):
    assert not list(offences(module, f'"""Told."""\n{source}', is_package))


def test_arrows_run_from_the_examples_to_the_ground():
    """The tables name real floors, once each, and every host of a stranger is one of them."""
    assert sum(map(len, FLOORS)) == len(FLOOR)
    assert {host for hosts in STRANGERS.values() for host in hosts} <= FLOOR.keys()
