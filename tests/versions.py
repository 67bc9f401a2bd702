"""The versions installed here of all that pyproject.toml asks for, as a table.

    python -m tests.versions          of what pyproject.toml asks for
    python -m tests.versions --lock   of everything that differs from constraints.txt

``tests/lowest.sh`` runs the first among the lowest versions that pyproject.toml allows, ``tests/newest.sh`` the second
among the newest that there are.
"""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import distributions, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = (ROOT / "constraints.txt").read_text("utf-8")
TOOLS = {"app", "docs", "dev"}  # extras of a page in the browser and of those who work here: the newest will do


def lowest() -> dict[str, str]:
    """Each package that every Python is asked for, and the lowest version of it that is allowed."""
    extras = {name: asked for name, asked in PROJECT["optional-dependencies"].items() if name not in TOOLS}
    asked = [each for group in (PROJECT["dependencies"], *extras.values()) for each in group if ";" not in each]
    bounds = [re.match(r"([\w.-]+)>=([\w.]+)", each) for each in asked if not each.startswith("captum-vit[")]
    assert all(bounds), f"a package without a lower bound, of which nobody has tried the lowest version: {asked}"
    return {"Python": PROJECT["requires-python"].removeprefix(">=")} | dict(bound.groups() for bound in bounds if bound)


def locked(environment: dict[str, str] | None = None) -> dict[str, str]:
    """The version of each package that constraints.txt pins: in this environment, or with markers of another."""
    lines = [Requirement(line) for line in LOCK.splitlines() if not line.startswith("#")]
    here = [pin for pin in lines if pin.marker is None or pin.marker.evaluate(environment)]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in here}
    assert len(versions) == len(here), "a package with two versions"
    return versions


def differing() -> list[tuple[str, str, str]]:
    """Each package that is installed here in another version than constraints.txt says, and both versions."""
    pinned = locked()
    here = {canonicalize_name(each.name): each.version.partition("+")[0] for each in distributions()}
    names = sorted(here.keys() - {"pip", canonicalize_name(PROJECT["name"])})
    rows = [(name, pinned.get(name, "–"), here[name]) for name in names]
    return [row for row in rows if row[1] != row[2]]


def main(arguments: list[str]) -> None:
    if arguments == ["--lock"]:
        print("| package | constraints.txt | here |\n|---|---|---|")
        for row in differing():
            print(f"| {' | '.join(row)} |")
        return
    print("| package | version |\n|---|---|")
    for name in lowest():
        print(f"| {name} | {platform.python_version() if name == 'Python' else version(name)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
