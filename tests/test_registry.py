"""Every method and every metric is in each place that lists them; what is missing is named, with what to do there."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import runpy
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest
from captum.attr import Attribution

import captum_vit as cv
import quantus_metrics as qm
from captum_vit import attr
from quantus_metrics import metrics
from tests.benchmarks.methods import COLUMNS, FIGURES, facts, published
from tests.captum_vit.attr.test_twins import GRIDS
from tests.captum_vit.attr.test_twins import METHODS as TWINS

ROOT = Path(__file__).parents[1]
TABLES = runpy.run_path(str(ROOT / "docs" / "build" / "tables.py"))
COMPOSED = {"SkipPLUS", "InputGradient"}  # classes whose instances are in METHODS under names of their own
NO_TWIN = {
    *("LRP", "PartialLRP", "TransAttr"),  # weights are rounded to float32 otherwise: test_lrp.py
    "RandomAttribution",  # it is what torch.rand gives
    "LayerSmoothCDAM",  # its twin must be given the noise: test_cdam_smooth.py
    "SmoothGrad",  # Captum's noise cannot be given: test_input_gradient.py
    *("PLUS(GenAtt)", "PLUS(GlobEnc)", "PLUS(ALTI)"),  # sums of what has a twin
}


def leaves(package: object, base: type) -> list[str]:
    """Public classes defined in the files of a package of which no other public class there is made."""
    names = [module.name for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    modules = [importlib.import_module(name) for name in names]
    found = [
        thing
        for module in modules
        for name, thing in inspect.getmembers(module, inspect.isclass)
        if thing.__module__ == module.__name__ and issubclass(thing, base) and not name.startswith("_")
    ]
    bases = set(chain.from_iterable(cls.__mro__[1:] for cls in found))
    return [cls.__name__ for cls in found if cls not in bases]


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def first_cells(text: str) -> list[str]:
    """Names in the first cells of the rows of Markdown tables."""
    cells = re.findall(r"^\| \[?(`.+?) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall("`(.+?)`", cell)]


def section(title: str) -> str:
    """Of the page of methods and metrics."""
    return page("docs/methods.md").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def reference() -> list[str]:
    """Names that pages of the reference show."""
    found = chain.from_iterable(re.findall(r"(?m)^::: \w+\.(\w+)$", p.read_text("utf-8")) for p in API)
    return list(found)


API = sorted((ROOT / "docs" / "api").glob("*.md"))


class Place(NamedTuple):
    """Where names stand, which names must stand there, and what adds one."""

    there: Callable[[], Iterable[str]]
    wanted: Callable[[], Iterable[str]]
    add: str
    ordered: bool = False  # as METHODS or METRICS is
    others: bool = False  # other names may stand there too


def classes() -> list[str]:
    return [name for name in cv.METHODS if hasattr(attr, name) and inspect.isclass(cv.METHODS[name])]


PLACES = {
    "METHODS": Place(
        lambda: cv.METHODS,
        lambda: [name for name in leaves(attr, Attribution) if name not in COMPOSED],
        "captum_vit/attr/__init__.py: import {name}, and put it into METHODS, at its place among its kind.",
        others=True,
    ),
    "__all__ of captum_vit.attr": Place(
        lambda: attr.__all__,
        classes,
        'captum_vit/attr/__init__.py: put "{name}" into __all__, which type checkers read.',
        others=True,
    ),
    "methods of their page": Place(
        lambda: first_cells(section("Methods")),
        lambda: cv.METHODS,
        "docs/methods.md: `python -m tests.benchmarks.methods --write` measures {name}, and writes its row.",
        ordered=True,
    ),
    "methods of the site's reference": Place(
        reference,
        classes,
        "docs/api/: put `::: captum_vit.{name}` into the page of its kind.",
        others=True,
    ),
    "methods of the site's tables": Place(
        lambda: first_cells(TABLES["methods"]()),
        lambda: cv.METHODS,
        "docs/build/tables.py: methods() has no row for {name}.",
        ordered=True,
    ),
    "how each method was checked": Place(
        lambda: first_cells(page("docs/how-each-method-was-checked.md")),
        lambda: cv.METHODS,
        "docs/how-each-method-was-checked.md: put in a row for {name}: its twin, an identity, a package, other forms.",
        ordered=True,
    ),
    "slow twins": Place(
        lambda: {name.partition(" ")[0] for name in (*TWINS, *GRIDS)} | NO_TWIN,
        lambda: cv.METHODS,
        "tests/references/: write the formula of {name} in loops, one sample in float64. Then put both into METHODS "
        "in tests/captum_vit/attr/test_twins.py.",
        others=True,
    ),
    "compatibility": Place(
        lambda: re.findall("`(.+?)`", " ".join(re.findall(r"(?m)^- \*\*.+$", page("docs/compatibility.md")))),
        lambda: cv.METHODS,
        "docs/compatibility.md: `python -m tests.compatibility` runs {name} on every model, and writes the table.",
    ),
    "METRICS": Place(
        lambda: qm.METRICS,
        lambda: leaves(metrics, metrics.TokenMetric),
        "quantus_metrics/metrics/registration.py: import {name}, and put it into METRICS, at its place among its kind.",
        others=True,
    ),
    "__all__ of the metrics": Place(
        lambda: metrics.__all__,
        lambda: qm.METRICS,
        'quantus_metrics/metrics/registration.py: put "{name}" into __all__, which type checkers read.',
        others=True,
    ),
    "metrics of their page": Place(
        lambda: first_cells(section("Metrics")),
        lambda: qm.METRICS,
        "docs/methods.md: put a row for {name} into the table of metrics: what it measures, and whose it is.",
    ),
    "metrics of the page on Quantus": Place(
        lambda: first_cells(page("docs/quantus.md")),
        lambda: qm.METRICS,
        "docs/quantus.md: put a row for {name} into the table of metrics, under its category.",
        others=True,
    ),
    "metrics of the site's reference": Place(
        reference,
        lambda: qm.METRICS,
        "docs/api/metrics.md: put in `::: quantus_metrics.{name}`.",
        others=True,
    ),
    "metrics of the site's tables": Place(
        lambda: first_cells(TABLES["metrics"]()),
        lambda: qm.METRICS,
        "docs/build/tables.py: metrics() has no row for {name}.",
        ordered=True,
    ),
}


def faults(place: Place) -> list[str]:
    """What is missing, what is there without being wanted, and what stands in another order, a sentence for each."""
    there, wanted = list(place.there()), list(place.wanted())
    found = [place.add.format(name=name) for name in wanted if name not in there]
    if not place.others:
        found += [
            f"{name} is there, but not in METHODS or METRICS: take it out." for name in there if name not in wanted
        ]
    if not found and place.ordered and there != wanted:
        first = next((here, want) for here, want in zip(there, wanted, strict=True) if here != want)
        found.append(f"{first[0]} stands where the order of METHODS or METRICS has {first[1]}.")
    return found


@pytest.mark.parametrize("name", PLACES)
def test_every_name_is_there(name: str) -> None:
    found = faults(PLACES[name])
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_what_is_missing_superfluous_or_out_of_order_is_found() -> None:
    def of(there: str, **options: bool) -> list[str]:
        return faults(Place(lambda: there.split(), lambda: ["A", "B"], "add {name}", **options))

    assert of("A") == ["add B"]
    assert of("A B C") == ["C is there, but not in METHODS or METRICS: take it out."]
    assert of("B A") == of("A B C", others=True) == of("A B", ordered=True) == []
    assert of("B A", ordered=True) == ["B stands where the order of METHODS or METRICS has A."]


@pytest.mark.slow
@pytest.mark.parametrize("name", cv.METHODS)
def test_a_row_of_the_page_is_what_the_method_does(name: str) -> None:
    row, found = published()[name], facts(name)
    assert {column: row[column] for column in COLUMNS if column not in FIGURES} == found, (
        f"docs/methods.md: `python -m tests.benchmarks.methods --only '{name}' --write` writes its row anew."
    )
