"""The documentation site: its tables, the reference of every public name, and links that lead somewhere."""

from __future__ import annotations

import re
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import griffe
import pytest

import captum_vit as cv
import quantus_metrics as qm
from captum_vit import demo, studies, viz
from quantus_metrics import perturb
from quantus_metrics.metrics import METRICS

ROOT = Path(__file__).parents[1]
tables = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "build" / "tables.py")))
API = {name for page in (ROOT / "docs/api").glob("*.md") for name in re.findall(r"(?m)^::: (\S+)$", page.read_text())}
CONSTANTS = {"FRACTIONS", "ORDERS", "POSITIVE", "SIGNED", "studies"}


@pytest.mark.parametrize("make", tables.TABLES.values(), ids=tables.TABLES)
def test_nothing_of_another_markup_is_left_in_a_table(make) -> None:
    assert not re.search(r":\w+:`|\.\. math", make())


def test_departures_of_methods_and_of_metrics_are_listed() -> None:
    parts = tables.departures().split("\n\n")
    assert sum("[captum_vit." in part for part in parts) >= 20
    assert sum("[quantus_metrics." in part for part in parts) >= 5


@pytest.mark.parametrize(
    ("room", "module"),
    [("", cv), ("demo.", demo), ("studies.", studies), ("viz.", viz), ("", qm), ("perturb.", perturb)],
    ids=["captum_vit", "demo", "studies", "viz", "quantus_metrics", "perturb"],
)
def test_the_reference_has_every_public_name(room: str, module) -> None:
    package = module.__name__.partition(".")[0]
    elsewhere = {"viz.Explanation": "Explanation"}  # the same class, under its shorter name
    names = [f"{room}{name}" for name in module.__all__ if name not in CONSTANTS]
    missing = {f"{package}.{elsewhere.get(name, name)}" for name in names} - API
    assert not missing, "\n" + "\n".join(f"docs/api/: put in `::: {name}`" for name in sorted(missing))


def test_every_function_of_a_metric_is_in_the_reference() -> None:
    """Those that the docstrings of metrics send a reader to."""
    named = {name for metric in METRICS.values() for name in re.findall(r"[Ss]ee `(\w+)`", metric.__doc__ or "")}
    assert len(named) >= 8
    assert not [name for name in named if not any(known.endswith(f".{name}") for known in API)]


def everything(thing: griffe.Object) -> Iterator[griffe.Object]:
    """What a package holds, itself included."""
    yield thing
    for member in thing.members.values():
        if not member.is_alias:
            yield from everything(member)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["captum_vit", "quantus_metrics"])
def test_docstrings_are_read_without_a_warning(package: str, caplog: pytest.LogCaptureFixture) -> None:
    """Private ones too; `mkdocs build --strict` sees those on a page of the reference alone."""
    sections = [
        section
        for thing in everything(griffe.load(package, search_paths=[ROOT]))
        if thing.docstring
        for section in thing.docstring.parse("google")
    ]
    assert sum(section.kind is griffe.DocstringSectionKind.parameters for section in sections) > 50
    assert not caplog.messages


@pytest.mark.slow
@pytest.mark.parametrize("package", ["captum_vit", "quantus_metrics"])
def test_docstrings_become_markdown(package: str) -> None:
    extension = griffe.load_extensions(str(ROOT / "docs" / "build" / "docstrings.py"))
    found = list(everything(griffe.load(package, search_paths=[ROOT], extensions=extension)))
    texts = {thing.path: thing.docstring.value for thing in found if thing.docstring}
    assert len(texts) > 200 and any("$$" in text for text in texts.values())
    assert not [path for path, text in texts.items() if re.search(r":\w+:`|^ *\.\. \w+::", text, re.MULTILINE)]


def test_the_menu_names_each_page_once() -> None:
    """A page that it leaves out is a warning of `mkdocs build --strict`."""
    menu = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2].partition("\nhooks:")[0]
    pages = re.findall(r": (\S+\.md)$", menu, re.MULTILINE)
    assert len(pages) > 40
    assert [page for page, times in Counter(pages).items() if times > 1] == []


def test_links_lead_to_files() -> None:
    """In the repository; that they do on the site, `mkdocs build --strict` says."""
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "captum_vit").rglob("*.md")]
    inner = re.compile(r"\]\((?!\w+:|#|\.\./\.\./actions/)([^)#\s]+)")  # ../../actions: where GitHub shows a workflow
    code = re.compile(r"^```.*?^```|`[^`]+`", re.DOTALL | re.MULTILINE)
    links = [(page, link) for page in pages for link in inner.findall(code.sub("", page.read_text("utf-8")))]
    assert len(links) > 40
    assert not [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()]
