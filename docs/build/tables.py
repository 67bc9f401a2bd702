"""Tables of methods, metrics and models, made from the code: they hold what is there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable

import captum_vit as cv
from captum_vit.models.spec import _REGISTRY, Spec
from quantus_metrics.metrics import METRICS

LIBRARIES = {"timm": "timm", "transformers": "Hugging Face", "torchvision": "torchvision", "open_clip": "open_clip"}


def methods() -> str:
    """Every name in METHODS: its meaning and its source, in the words of its docstring."""
    rows = []
    for name, factory in cv.METHODS.items():
        cls = documented(name, factory)
        rows.append((f"[`{name}`][captum_vit.{cls.__name__}]", first_line(cls), named(cls, "Source")))
    return table(("method", "what it is", "source"), rows)


def metrics() -> str:
    """Every metric that is registered with Quantus: its question, category, direction, range and source."""
    rows = []
    for cls in METRICS:
        metric, (low, high) = cls(), cls().score_range
        shown = "unbounded" if abs(low) == abs(high) == float("inf") else f"{low:g} to {high:g}".replace("-", "−")
        texts = "images, text" if any(kind.value == "Text" for kind in cls.data_applicability) else "images"
        link = f"[`{cls.__name__}`][quantus_metrics.{cls.__name__}]"
        rows.append((link, first_line(cls), cls.evaluation_category.value, metric.score_direction.value, shown, texts,
                     named(cls, "Reference")))  # fmt: skip
    return table(("metric", "what it is", "category", "better", "range", "reads", "source"), rows)


def models() -> str:
    """Every class of towers that is described by a Spec."""
    rows = []
    for name, describe in _REGISTRY.items():
        library, _, cls = name.partition(".")
        if library in LIBRARIES:
            about = f"{describe.family}." if isinstance(describe, Spec) else first_line(describe)
            rows.append((LIBRARIES[library], f"`{cls}`", about))
    return table(("library", "class inside the model", "what it is"), rows)


TABLES: dict[str, Callable[[], str]] = {"methods": methods, "metrics": metrics, "models": models}


def documented(name: str, factory: object) -> type:
    """The class whose docstring tells of a method: itself, PLUS or SkipPLUS of a composition, or InputGradient."""
    if inspect.isclass(factory):
        return factory
    return getattr(cv, name.partition("(")[0], cv.InputGradient)


def first_line(thing: object) -> str:
    """The first line of a docstring, without the roles that only its page can resolve."""
    line = (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ")
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", line)


def named(thing: object, section: str) -> str:
    """What follows ``Source:`` or ``Reference:`` in a docstring."""
    found = re.search(rf"^{section}: (.+?)(?:\n\n|\Z)", inspect.getdoc(thing) or "", re.DOTALL | re.MULTILINE)
    return "–" if found is None else first_line_of(found[1])


def first_line_of(text: str) -> str:
    """The paragraph on one line, without its full stop."""
    return re.sub(r"\s+", " ", text).rstrip(".")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
