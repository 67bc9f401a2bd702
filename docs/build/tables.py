"""Tables of methods and metrics, made from the code: they hold what is there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable

import captum_vit as cv
from quantus_metrics.metrics import METRICS

OTHERS = re.compile(
    r"^((?:Departs|Common implementations|The original|The source|In the source|The pytorch-grad-cam|The means run"
    r"|The SkipPLUS paper's|Rows (?:are not normalised|of each factor)).+?)(?:\n\n|\Z)",
    re.DOTALL | re.MULTILINE,
)


def methods() -> str:
    """Every name in METHODS: its meaning and its source, in the words of its docstring."""
    rows = []
    for name, factory in cv.METHODS.items():
        cls = documented(name, factory)
        rows.append((link(cls).replace(f"`{cls.__name__}`", f"`{name}`", 1), first_line(cls), named(cls, "Source")))
    return table(("method", "what it is", "source"), rows)


def metrics() -> str:
    """Every metric that is registered with Quantus: its question, category, direction, range, level and source."""
    rows = []
    for cls in METRICS.values():
        metric, (low, high) = cls(), cls().score_range
        shown = "unbounded" if abs(low) == abs(high) == float("inf") else f"{low:g} to {high:g}".replace("-", "−")
        texts = "images, text" if any(kind.value == "Text" for kind in cls.data_applicability) else "images"
        facts = (cls.evaluation_category.value, metric.score_direction.value, shown, metric.level, texts)
        rows.append((link(cls), first_line(cls), *facts, named(cls, "Reference")))
    columns = ("metric", "what it is", "category", "better", "range", "level", "reads", "source")
    return table(columns, rows)


def departures() -> str:
    """What each docstring says of other forms of the same thing."""
    classes = dict.fromkeys(documented(name, factory) for name, factory in cv.METHODS.items())
    found = (
        (cls, [flat(re.sub(r"^Departs {2,}", "Departs: ", part)) for part in OTHERS.findall(docstring(cls))])
        for cls in (*classes, *METRICS.values())
    )
    return "\n\n".join(f"{link(cls)}: {' '.join(parts)}" for cls, parts in found if parts)


TABLES: dict[str, Callable[[], str]] = {
    "methods": methods, "metrics": metrics, "departures": departures,
}  # fmt: skip


def documented(name: str, factory: object) -> type:
    """The class whose docstring tells of a method: itself, PLUS or SkipPLUS of a composition, or InputGradient."""
    if inspect.isclass(factory):
        return factory
    return getattr(cv, name.partition("(")[0], cv.InputGradient)


def link(cls: type) -> str:
    """A name that leads to its reference."""
    return f"[`{cls.__name__}`][{cls.__module__.partition('.')[0]}.{cls.__name__}]"


def docstring(thing: object) -> str:
    """As ``help`` shows it."""
    return inspect.getdoc(thing) or ""


def first_line(thing: object) -> str:
    """The sentence that a docstring begins with."""
    return flat(docstring(thing).partition("\n\n")[0])


def named(thing: object, section: str) -> str:
    """What follows ``Source:`` or ``Reference:`` in a docstring."""
    found = re.search(rf"^{section}: (.+?)(?:\n\n|\Z)", docstring(thing), re.DOTALL | re.MULTILINE)
    return "–" if found is None else flat(found[1]).rstrip(".")


def flat(text: str) -> str:
    """A paragraph on one line, its roles as code and formulas."""
    text = re.sub(r":math:`([^`]+)`", r"$\1$", re.sub(r"\s+", " ", text))
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text).strip()


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
