"""python -m tests.families [words]

Writes docs/families.md; with words it only prints what is seen of those models whose names hold one of them.
"""

from __future__ import annotations

import os
import sys
from collections import Counter

os.environ["HF_HUB_OFFLINE"] = "1"

from tests.families.page import PAGE, Row, page
from tests.families.sweep import everything, swept
from tests.families.trial import EQUAL, METHODS, Result


def summary(name: str, result: Result) -> str:
    """A model in a few lines."""
    if result.not_built:
        return f"{name}: not built: {result.not_built}"
    refused = Counter(f"{v.said} Got: {v.got}" for v in result.verdicts.values() if not v.works)
    lines = [f"{name}: {len(result.working)} of {len(METHODS)} work"]
    lines += [f"    {n} refused: {reason[:260]}" for reason, n in refused.items()]
    lines += [f"    {check} – {reason}" for check, reason in result.checks.items() if reason != EQUAL]
    lines += [f"    FAILED {what}: {failure}" for what, failure in result.failures.items()]
    return "\n".join(lines)


def main() -> int:
    words, rows = sys.argv[1:], []
    for library, name, result in swept(pair for pair in everything() if not words or any(w in pair[1] for w in words)):
        rows.append(Row(library, name, result))
        print(summary(name, result), flush=True)
    if not words:
        PAGE.write_text(page(rows), "utf-8")
    return sum(len(row.result.failures) for row in rows)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
