"""The versions installed here of all that pyproject.toml asks for, as a table.

    python -m tests.versions

``tests/lowest.sh`` runs it, and a part of the tests, among the lowest versions that pyproject.toml allows.
"""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
TOOLS = {"app", "docs", "dev"}  # extras of a page in the browser and of those who work here: the newest will do


def lowest() -> dict[str, str]:
    """Each package that every Python is asked for, and the lowest version of it that is allowed."""
    extras = {name: asked for name, asked in PROJECT["optional-dependencies"].items() if name not in TOOLS}
    asked = [each for group in (PROJECT["dependencies"], *extras.values()) for each in group if ";" not in each]
    bounds = [re.match(r"([\w.-]+)>=([\w.]+)", each) for each in asked if not each.startswith("captum-vit[")]
    assert all(bounds), f"a package without a lower bound, of which nobody has tried the lowest version: {asked}"
    return {"Python": PROJECT["requires-python"].removeprefix(">=")} | dict(bound.groups() for bound in bounds if bound)


def main() -> None:
    print("| package | version |\n|---|---|")
    for name in lowest():
        print(f"| {name} | {platform.python_version() if name == 'Python' else version(name)} |")


if __name__ == "__main__":
    main()
