"""Imports point downward; the source is read to check it.

If an import upward or inside a function seems necessary, move a file. If the structure has changed, change the tables
below, and give the reason in the commit.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("captum_vit", "quantus_metrics")

# From the bottom up. A folder imports itself and the layers below; folders of one layer do not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("captum_vit.errors",),
    ("captum_vit.extras", "captum_vit.options"),
    ("captum_vit.sites", "captum_vit.tokens"),
    ("captum_vit.models",),
    ("captum_vit.description", "captum_vit.inputs"),
    ("captum_vit.trace",),
    ("captum_vit.targets",),
    ("captum_vit.attr", "captum_vit.viz"),
    ("captum_vit.studies", "captum_vit.explain_answer", "captum_vit.named_method"),
    ("captum_vit.explain", "captum_vit.doctor"),
    ("captum_vit",),  # the table of contents
    ("captum_vit.cli", "captum_vit.demo"),
    ("captum_vit.__main__",),
    ("quantus_metrics.cells",),
    ("quantus_metrics.bridge",),
    ("quantus_metrics.perturb", "quantus_metrics.statistics", "quantus_metrics.mosaic", "quantus_metrics.randomised"),
    ("quantus_metrics.token_arrays",),
    ("quantus_metrics.metrics", "quantus_metrics.option_sweep", "quantus_metrics.self_test"),
    ("quantus_metrics.parts",),
    ("quantus_metrics",),  # the table of contents
    ("quantus_metrics.benchmark.data",),
    ("quantus_metrics.benchmark", "quantus_metrics.demo"),
    ("quantus_metrics.commands", "quantus_metrics.training"),
    ("examples",),
)
LAYER = {folder: number for number, folders in enumerate(LAYERS) for folder in folders}

# Which folders may import which libraries. All may import torch, captum and numpy; examples may import any.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "transformers": ("captum_vit.inputs", "captum_vit.demo"),
    "open_clip": ("captum_vit.inputs",),
    "timm": ("captum_vit.inputs", "captum_vit.demo", "quantus_metrics.benchmark"),
    "torchvision": ("captum_vit.inputs", "captum_vit.demo", "quantus_metrics.benchmark", "quantus_metrics.training"),
    "PIL": ("captum_vit.inputs", "captum_vit.viz", "captum_vit.demo", "quantus_metrics"),
    "matplotlib": ("captum_vit.viz", "captum_vit.demo", "quantus_metrics"),
    "quantus": ("quantus_metrics",),
}

NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}
LONGEST = 400


def within(module: str, folder: str) -> bool:
    return module == folder or module.startswith(folder + ".")


def folder_of(name: str) -> str | None:
    """The innermost folder of the table that holds a module, or a name imported from one."""
    return max((folder for folder in LAYER if within(name, folder)), key=len, default=None)


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
    """What is wrong with the imports, name or length of one file, a sentence each."""
    tree = ast.parse(source)
    folder = folder_of(module)
    if folder is None or (folder in PACKAGES and module != folder):
        yield f"{module} is in no layer: give its folder a line in LAYERS"
        return

    for name, line, late in imports(module, tree, is_package):
        where, other = f"{module}:{line}", folder_of(name)
        if other is not None:
            if other != folder and LAYER[other] >= LAYER[folder]:
                yield f"{where} imports {name}: {folder} may not import {other}, which is not below it"
            if late:
                yield f"{where} imports {name} inside a function: move it to the top"
            if folder == other == "captum_vit.attr" and module != folder and not within(name, f"{folder}.base"):
                yield f"{where} imports {name}: files in attr/ import from attr/ only base"
        library = name.split(".")[0]
        if folder != "examples" and not any(within(module, host) for host in LIBRARIES.get(library, (module,))):
            yield f"{where} imports {library}: only {', '.join(LIBRARIES[library])} may"

    if not any(part.startswith("_") for part in module.split(".")) and not ast.get_docstring(tree):
        yield f"{module} has no docstring"
    for part in NAMELESS.intersection(module.split(".")):
        yield f"{module}: name a folder for its content, not '{part}'"
    if (length := source.count("\n")) > LONGEST:
        yield f"{module} has {length} lines, more than {LONGEST}: separate what it holds"


def files() -> Iterator[tuple[str, str, bool]]:
    """Each file of the packages and examples: dotted name, source, whether it is an `__init__`."""
    for path in sorted(path for top in (*PACKAGES, "examples") for path in (ROOT / top).rglob("*.py")):
        is_package = path.stem == "__init__"
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if is_package else parts), path.read_text(encoding="utf-8"), is_package


@pytest.mark.slow
def test_imports_point_downward():
    found = [offence for file in files() for offence in offences(*file)]
    assert not found, "\n".join(found)


def test_tests_are_short_and_named_for_what_they_hold():
    paths = sorted((ROOT / "tests").rglob("*.py"))
    assert not [str(path) for path in paths if NAMELESS.intersection(path.relative_to(ROOT).with_suffix("").parts)]
    assert not [str(path) for path in paths if path.read_text(encoding="utf-8").count("\n") > LONGEST]


BAD: dict[str, tuple[str, str, str]] = {
    "upward": ("captum_vit.trace.tap", "from captum_vit.attr.base import TokenAttribution", "not below"),
    "upward, relative": ("captum_vit.trace.tap", "from ..attr import base", "not below"),
    "upward, for types only": (
        "captum_vit.tokens",
        "if TYPE_CHECKING:\n    import captum_vit.models",
        "not below",
    ),
    "sideways": ("captum_vit.viz.overlay", "from captum_vit.attr.base import TokenAttribution", "not below"),
    "from the contents": ("captum_vit.attr.cdam", "from captum_vit import PLUS", "not below"),
    "the other package": ("captum_vit.cli", "import quantus_metrics.commands", "not below"),
    "late": ("captum_vit.explain", "def f():\n    from captum_vit.attr import base", "inside a function"),
    "a sibling": ("captum_vit.attr.cdam", "from captum_vit.attr.cat import CAT", "only base"),
    "a sibling, relative": ("captum_vit.attr.cdam", "from .cat import CAT", "only base"),
    "a library": ("captum_vit.attr.cdam", "def f():\n    import timm", "only captum_vit.inputs"),
    "a name of a library": (
        "captum_vit.explain",
        "from transformers import AutoModel",
        "only captum_vit.inputs",
    ),
    "a plot": ("captum_vit.attr.cdam", "import matplotlib.pyplot as plt", "only captum_vit.viz"),
    "no layer": ("captum_vit.attic", "", "no layer"),
    "no docstring": ("captum_vit.tokens", "x = 1", "no docstring"),
    "nameless": ("captum_vit.models.utils", "", "not 'utils'"),
    "long": ("captum_vit.tokens", "\n" * 401, "401 lines"),
}


@pytest.mark.parametrize(("module", "source", "complaint"), BAD.values(), ids=BAD)
def test_a_violation_is_found(module: str, source: str, complaint: str):
    assert any(complaint in offence for offence in offences(module, source))


GOOD: dict[str, tuple[str, str, bool]] = {
    "downward": ("captum_vit.attr.cdam", "from captum_vit.trace.record.record import record", False),
    "the base": ("captum_vit.attr.cdam", "from .base import TokenAttribution", False),
    "contents of attr": ("captum_vit.attr", "from .cdam import LayerCDAM\nfrom .cat import CAT", True),
    "the contents": ("captum_vit", "from .attr import LayerCDAM\nfrom .errors import CaptumViTError", True),
    "a library where it is allowed": (
        "captum_vit.inputs.loading",
        "import timm\ndef f():\n    import timm.layers",
        False,
    ),
    "the other package, downward": ("quantus_metrics.metrics.aopc", "import captum_vit as cv\nimport quantus", False),
}


@pytest.mark.parametrize(("module", "source", "is_package"), GOOD.values(), ids=GOOD)
def test_what_is_allowed_passes(module: str, source: str, is_package: bool):
    assert not list(offences(module, f'"""A docstring."""\n{source}', is_package))


def test_the_tables_name_folders_once():
    """And every folder that may import a library is in LAYERS."""
    assert sum(map(len, LAYERS)) == len(LAYER)
    assert {host for hosts in LIBRARIES.values() for host in hosts} <= LAYER.keys()
