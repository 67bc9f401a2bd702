"""A table as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

from quantus_metrics.benchmark.table import COSTS, Cell, Table


def markdown(table: Table) -> str:
    """One table for each model: methods down, metrics across; the best and its equals in bold."""
    blocks = [f"# {_plain(_unmarked(table.title))}"]
    for model in table.models:
        head = ["method", *(f"{_unmarked(name)} {_arrow(table.higher[name])}" for name in table.metrics), *COSTS]
        lines = [f"## {_plain(_unmarked(model))}", "", _line(head), _line(["---", *["--:"] * (len(head) - 1)])]
        for method in table.methods:
            shown = [_text(table.cells[model, name, method], "**{}**") for name in table.metrics]
            lines.append(_line([_unmarked(method), *shown, *_costs(table, model, method)]))
        blocks.append("\n".join(lines))
        blocks += [f"Chosen: {_plain(_unmarked(one))}." for one in table.chosen.get(model, [])]
    blocks.append(NOTES)
    return "\n\n".join(blocks) + "\n"


NOTES = (
    "Mean [95 % bootstrap interval over images] (rank; methods share a rank where a permutation test on the same "
    "images finds no difference, p ≥ 0.05; of fewer than six images there is none). *paper*: the printed number and "
    "ours less it. *time*: of a map by a plain forward pass; *ms*: of a map; medians. *MiB*: memory that the map of "
    "one image needs at most."
)


def latex(table: Table) -> str:
    """The same as a LaTeX table (booktabs), one for each model."""
    blocks = []
    for model in table.models:
        head = ["method", *(f"{_tex(name)} {_arrow(table.higher[name], tex=True)}" for name in table.metrics), *COSTS]
        lines = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
        for method in table.methods:
            shown = [_tex(_text(table.cells[model, name, method], "{}")) for name in table.metrics]
            lines.append(" & ".join([_tex(method), *shown, *_costs(table, model, method)]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", *(f"% chosen: {_tex(one)}" for one in table.chosen.get(model, []))]
        blocks.append(f"% {_tex(table.title)}: {_tex(model)}\n" + "\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def comma_separated(table: Table) -> str:
    """One line for each cell, every figure in a column of its own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    figures = ["mean", "low", "high", "n", "skipped", "errors", "rank", "p", "published", "difference", *COSTS]
    writer.writerow(["model", "metric", "method", *figures])
    for (model, metric, method), cell in table.cells.items():
        s = cell.summary
        found: list[Any] = [None, None, None, 0, 0] if s is None else [s.mean, s.low, s.high, s.n, s.skipped]
        found += [cell.errors, cell.rank, cell.p, cell.published, cell.difference]
        found += [table.cost[model, method].figures.get(name) for name in COSTS]
        names = map(_inert, (model, metric, method))
        writer.writerow([*names, *("" if value is None else value for value in found)])
    return out.getvalue()


FORMS: dict[str, Callable[[Table], str]] = {".md": markdown, ".tex": latex, ".csv": comma_separated}


def _text(cell: Cell, best: str) -> str:
    if cell.summary is None:
        return f"failed ({cell.errors})" if cell.errors else "no score"
    mean = f"{cell.summary.mean:.4g}"
    parts = [best.format(mean) if cell.rank == 1 else mean, f"[{cell.summary.low:.4g}, {cell.summary.high:.4g}]"]
    if cell.rank is not None:
        parts.append(f"({cell.rank})")
    if cell.difference is not None:
        parts.append(f"paper {cell.published:.4g}, {cell.difference:+.3g}")
    if cell.errors:
        parts.append(f"{cell.errors} failed")
    return " ".join(parts)


def _costs(table: Table, model: str, method: str) -> list[str]:
    cost = table.cost[model, method]
    return [
        (f"{cost.figures[name]:.3g}" if name in cost.figures else "")
        + (f" paper {cost.published[name]:.4g}" if name in cost.published else "")
        for name in COSTS
    ]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", r"\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """One line without HTML, which Markdown would hand on to the page."""
    return escape(_line_of(text), quote=False)


def _unmarked(name: str) -> str:
    """A name whose signs Markdown does not take for markup; an underscore within a word is none."""
    return re.sub(r"[\\`*\[\]]|(?<!\w)_|_(?!\w)", r"\\\g<0>", name)


def _line_of(text: str) -> str:
    """A name as one line, whatever breaks and control signs are in it."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _inert(text: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    line = _line_of(text)
    return f"'{line}" if line.startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")) else line


def _arrow(higher: bool | None, tex: bool = False) -> str:
    if higher is None:
        return ""
    return (r"$\uparrow$" if tex else "↑") if higher else (r"$\downarrow$" if tex else "↓")


TEX: dict[str, str | int | None] = {sign: "\\" + sign for sign in "&%$#_{}"}
TEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}  # other signs in TeX's own font


def _tex(text: str) -> str:
    """Text that TeX sets as it stands: no command, no comment, no end of the line."""
    return _line_of(text).translate(str.maketrans(TEX))
