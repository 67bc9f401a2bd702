"""docs/families.md: what was seen of every model, in tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.families.checks import CHECKS
from tests.families.trial import EQUAL, METHODS, Result

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
COMMAND = "python -m tests.families"
CHECKED = {
    "blocks": "there are as many blocks as the configuration says",
    "cdam": "`LayerCDAM` is token times gradient, by autograd alone, where hooks on the query projections say that the "
    "last attention reads",
    "rollout": "`AttentionRollout` is computed from the attentions that the eager model itself returns",
    "rows": "a sample has the same maps in a batch of three and by itself",
    "padding": "a padded text has the maps that it has without padding",
    "layout": "where pixels of a cell (or a word) are changed, that token moves whose relevance the map shows there",
}


class Row(NamedTuple):
    """A model of a library, and what was seen."""

    library: str
    name: str
    result: Result


def kind(row: Row) -> str:
    """Library, and of transformers what is classified."""
    task = re.search("For(Sequence|Token|Image|Audio|Video)Classification", row.name)
    return f"{row.library}, {task[0]}" if task and row.library == "transformers" else row.library


def page(rows: list[Row]) -> str:
    reasons = list(dict.fromkeys(v.said for row in rows for v in row.result.verdicts.values() if not v.works))
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(kind(row), []).append(row)
    parts = [
        "# Any transformer",
        f"`{COMMAND}` wrote this page. It built {len(rows)} models with random weights, each of the smallest "
        "size that its class allows: every class of transformers that classifies texts, tokens, images, sounds or "
        "videos; timm's models whose blocks keep their tokens, one for each manner of building them, and hierarchies; "
        "torchvision's, open_clip's and PyTorch's own; and ten whose classes and attributes have names that say "
        f"nothing. On each it tried {len(METHODS)} methods: {', '.join(f'`{m}`' for m in METHODS)}.",
        counts(groups),
        "Where a method works, this was checked:",
        "\n".join(f"- **{name}** ({equal(rows, name)} models): {text}." for name, text in CHECKED.items()),
        "In the tables **✓** is a method that works, and a number the reason why one does not. A check is **=** where "
        "it holds, and **·** where there is nothing to compare with. **✗** is a method or a check that fails.",
    ]
    for title, members in groups.items():
        parts += [f"## {title}", table(members, reasons)]
        for what, names in absent(members).items():
            parts.append(f"Not built ({what}): {', '.join(f'`{name}`' for name in names)}.")
    failures = [f"- `{row.name}`, {what}: {why}" for row in rows for what, why in row.result.failures.items()]
    parts += ["## Failures", "\n".join(failures) or "None."]
    parts += ["## Reasons", "\n".join(f"{i}. {reason}" for i, reason in enumerate(reasons, 1))]
    return "\n\n".join(parts) + "\n"


def counts(groups: dict[str, list[Row]]) -> str:
    """Of each kind how many models there are, and how many work."""
    lines = ["| models | built | all methods work | some work | all refuse | ✗ |", "|---|--:|--:|--:|--:|--:|"]
    for title, rows in [*groups.items(), ("together", [row for members in groups.values() for row in members])]:
        works = [len(row.result.working) for row in rows if not row.result.not_built]
        every = sum(n == len(METHODS) for n in works)
        failed = sum(bool(row.result.failures) for row in rows)
        some, none = sum(map(bool, works)) - every, works.count(0)
        lines.append(f"| {title} | {len(works)} | {every} | {some} | {none} | {failed} |")
    return "\n".join(lines)


def equal(rows: list[Row], check: str) -> int:
    return sum(row.result.checks.get(check) == EQUAL for row in rows)


def table(rows: list[Row], reasons: list[str]) -> str:
    columns = [*METHODS, *CHECKED]
    lines = [f"| model | {' | '.join(columns)} | what was found |", "|---|" + ":-:|" * len(columns) + "---|"]
    return "\n".join(lines + [line(row, reasons) for row in rows if not row.result.not_built])


def line(row: Row, reasons: list[str]) -> str:
    """A model in the table."""
    verdicts, checks, failures = row.result.verdicts, row.result.checks, row.result.failures
    signs = {name: "✓" if v.works else str(reasons.index(v.said) + 1) for name, v in verdicts.items()}
    signs |= {name: "=" if seen == EQUAL else "·" for name, seen in checks.items()} | dict.fromkeys(failures, "✗")
    cells = [signs.get(name, signs.get("all", "")) for name in (*METHODS, *CHECKED)]
    got = next((v.got for v in verdicts.values() if v.got), "")
    return f"| `{row.name}` | {' | '.join(cells)} | {' '.join(got.split()).replace('|', '/')} |"


def absent(rows: list[Row]) -> dict[str, list[str]]:
    """Those that could not be built, by the reason."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.result.not_built:
            found.setdefault(row.result.not_built, []).append(row.name)
    return found


assert list(CHECKED) == [check.__name__ for check in CHECKS]
