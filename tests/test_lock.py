"""constraints.txt pins everything that pyproject.toml asks for, within its bounds, for every Python and system."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import captum_vit
from tests.versions import LOCK, PROJECT, ROOT, locked, lowest

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
SYSTEMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
ASKED = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_within_its_bounds(python: str, system: str) -> None:
    environment = {
        "python_version": python, "python_full_version": f"{python}.9", "sys_platform": system,
        "platform_system": SYSTEMS[system], "platform_machine": "x86_64", "implementation_name": "cpython",
    }  # fmt: skip
    pinned = locked(environment)
    requirements = [Requirement(each) for each in ASKED]
    here = [each for each in requirements if each.marker is None or each.marker.evaluate(environment)]
    named = {canonicalize_name(each.name): each.specifier for each in here if each.name != PROJECT["name"]}
    assert len(named) >= 30
    assert not {name: pinned.get(name) for name, bounds in named.items() if pinned.get(name, "") not in bounds}


def test_the_public_workflow_tests_every_python() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    matrix = re.search(r"python: \[(.+)\]", workflow)
    assert matrix is not None and tuple(re.findall(r'"([\d.]+)"', matrix[1])) == PYTHONS


def test_there_is_one_version() -> None:
    cited = re.search(r"(?m)^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited is not None and cited[1] == PROJECT["version"] == captum_vit.__version__


def test_the_page_on_compatibility_shows_the_lock() -> None:
    """Of Python 3.11."""
    page = (ROOT / "docs" / "compatibility.md").read_text("utf-8")
    told = dict(re.findall(r"^\| ([\w.-]+) \| [\d.]+ \| ([\d.]+) \|$", page, re.MULTILINE))
    pinned = locked({"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux"})
    assert {canonicalize_name(name) for name in told} == {canonicalize_name(name) for name in lowest()}
    assert {name: pinned.get(canonicalize_name(name), version) for name, version in told.items()} == told


def test_the_lock_is_of_versions_alone() -> None:
    """No address of a registry, no file and no option of an installer: each line is a name, a version, a marker."""
    lines = [line for line in LOCK.splitlines() if not line.startswith("#")]
    assert len(lines) > 150
    assert not [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", line)]
    assert "://" not in LOCK
